"""The bench of many texts at once: a row for each number of them, every step of which is one call for all."""

import json
from pathlib import Path

import pytest

from lowrank.bench.models import batch_sizes
from lowrank.cli import main
from lowrank.kernels.cpu import library
from lowrank.kernels.cpu.decode_step import Blocks

KEYS = {
    *("bench", "provider", "shape", "format", "dtype", "hats", "rank", "texts", "prompt_tokens", "new_tokens"),
    *("tokens_per_s", "times_one", "step_ms", "step_ms_min", "step_ms_spread", "turns", "machine", "threads"),
    *("versions", "commit", "date", "load"),
}


@pytest.mark.slow
@pytest.mark.skipif(bool(library.unavailable_reason()), reason="the library was not built")
@pytest.mark.parametrize("hats", [0, 3])
def test_a_row_a_number_of_texts_all_of_which_are_in_one_call(
    hats: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[int] = []
    run = Blocks.run
    monkeypatch.setattr(Blocks, "run", lambda blocks, x, *given: (calls.append(len(x)), run(blocks, x, *given))[1])
    monkeypatch.setattr(batch_sizes, "NEW_TOKENS", 3)
    out = tmp_path / "rows.jsonl"
    words = ["bench", "batch", "--shape", "tiny", "--turns", "2", "--threads", "1", "--hats", hats, "--out", out]
    assert main([*map(str, words)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["texts"] for row in rows] == [1, 2, 4, 8, 16, 32, 64]
    assert all(row.keys() == KEYS and row["turns"] == 2 and row["tokens_per_s"] > 0 for row in rows)
    assert rows[0]["times_one"] == 1
    assert {size: calls.count(size) for size in set(calls)} == {row["texts"]: 3 * 3 for row in rows}
    assert capsys.readouterr().out.count("\n") >= 8


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("--turns", "0"), "--turns must be at least 1, got 0"),
        (("--hats", "-1"), "--hats must be at least 0, got -1"),
        (("--shape", "9b"), "--shape must be one of tiny, 167m, got '9b'"),
    ],
)
def test_a_mistake_is_one_line(words: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "batch", *words]) == 2
    assert capsys.readouterr().err == f"lowrank: {reason}\n"
