"""The bench beside llama.cpp, with a program in its place that answers as its runner does; and our own worker."""

import stat
import sys
from pathlib import Path

import pytest

from lowrank.bench.models import llamacpp

pytestmark = pytest.mark.long

# Quantizes by copying, and writes the number of the adapter's file for every token.
STAND_IN = """
import json, shutil, sys
if sys.argv[1] == "quantize":
    assert sys.argv[4] in ("Q4_0", "IQ4_NL", "Q4_K_M") and sys.argv[5] in ("f16", "default")
    shutil.copy(sys.argv[2], sys.argv[3])
    sys.exit()
assert sys.argv[1] == "serve" and int(sys.argv[4]) == 576
print(json.dumps({"system": "a stand-in"}), flush=True)
for line in sys.stdin:
    new, *prompt = map(int, line.split())
    assert (new, len(prompt)) in ((64, 128), (0, 512))
    figures = {"prompt_s": len(prompt) / 1e3, "tokens_s": 0.064, "peak_bytes": 10**8}
    print(json.dumps({**figures, "tokens": [len(sys.argv)] * new}), flush=True)
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    runner = tmp_path / "llama.cpp" / llamacpp.RUNNER
    runner.parent.mkdir()
    runner.write_text(f"#!{sys.executable}\n{STAND_IN}")
    runner.chmod(runner.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv(llamacpp.FOLDER, str(runner.parent))
    return runner


@pytest.mark.filterwarnings("ignore")  # transformers', and of a base without a tokenizer
def test_every_side_has_a_row_with_its_bits_and_bytes(stand_in: Path, tmp_path: Path) -> None:
    for package in ("transformers", "gguf"):
        pytest.importorskip(package)
    rows = llamacpp.run("tiny", tmp_path / "scratch", turns=2, threads=1, tell=lambda _: None)
    assert len(rows) == len(llamacpp.SIDES)
    for side, row in zip(llamacpp.SIDES, rows, strict=True):
        assert (row["provider"], row["format"], row["head"], row["hat"]) == (
            *(side.provider, side.format, side.head),
            side.has_hat,
        )
        assert row["turns"] == 2 and row["peak_bytes"] >= 1e8
        if side.against is None:
            assert 4 < row["bits_a_weight"] < 5 and "versus_ours" not in row["tokens"]
        else:
            assert row["bits_a_weight"] == 16  # of copies
            assert row["prompt_512"]["per_s"] == row["tokens"]["per_s"] == 1000
            ratio, low, high = row["tokens"]["versus_ours"]
            assert low <= ratio <= high
    bf16, int8 = rows[0]["bytes_a_token"], rows[1]["bytes_a_token"]
    assert bf16 - int8 == 256 * 64 * (2 - 1) - 256 * 4  # a byte less a weight of the head, and a scale a row


def test_heads_are_compared_with_those_of_equal_bits() -> None:
    for side in llamacpp.SIDES:
        if side.against is not None:
            ours = llamacpp.SIDES[side.against]
            assert (ours.provider, ours.has_hat) == ("ours", side.has_hat)
            assert ours.head == {"f16": "bf16", "default": "int8"}[side.head]


def test_of_a_7b_each_peer_is_alone_with_what_it_is_compared_with() -> None:
    assert llamacpp.groups_of("167m") == [list(llamacpp.SIDES)]
    pairs = [[side.name for side in group] for group in llamacpp.groups_of("7b")]
    assert pairs == [
        ["ours-nf4-dq-bf16", "llama.cpp-Q4_0-f16"],
        ["ours-nf4-dq-bf16", "llama.cpp-IQ4_NL-f16"],
        ["ours-nf4-dq-bf16-hat", "llama.cpp-Q4_0-f16-hat"],
    ]


def test_a_library_that_is_not_built_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(llamacpp.FOLDER, raising=False)
    assert "tests/llamacpp/build.sh builds llama.cpp" in llamacpp.not_built_reason()
    monkeypatch.setenv(llamacpp.FOLDER, str(tmp_path))
    with pytest.raises(ValueError, match=r"runner is missing: tests/llamacpp/build\.sh builds it"):
        llamacpp.run("tiny", tmp_path, turns=1, threads=1, tell=print)


def test_a_side_that_fails_is_named(stand_in: Path, tmp_path: Path) -> None:
    stand_in.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such thing')\n")
    with (
        pytest.raises(RuntimeError, match=r"base\.gguf failed: .*no such thing"),
        llamacpp.serving(tmp_path / "base.gguf", 1, 64),
    ):
        pass
