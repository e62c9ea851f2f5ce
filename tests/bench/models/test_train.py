"""The training bench: both sides start from the same weights, hat and tokens, and a row says where it comes from."""

import json
from pathlib import Path

import pytest
import torch

from lowrank.bench.models.sides import SHAPES, make, random_tokens
from lowrank.bench.models.train import BLOCK, WARM
from lowrank.bench.models.train_workers import PROVIDERS
from lowrank.cli import main

KEYS = {
    *("bench", "provider", "shape", "format", "dtype", "rank", "tokens_a_step", "tokens_per_s", "ms", "ms_min"),
    *("ms_spread", "steps", "peak_bytes", "losses", "versus_ours", "machine", "threads", "versions", "commit", "date"),
    "load",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    made = tmp_path_factory.mktemp("bench")
    make(made, SHAPES["tiny"], random_tokens(SHAPES["tiny"], 4, 2, 16))
    return made


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_both_sides_learn_the_same(folder: Path) -> None:
    pytest.importorskip("peft")
    pytest.importorskip("bitsandbytes")
    tokens = torch.load(folder / "tokens.pt", weights_only=True)
    losses = {}
    for name, provider in PROVIDERS.items():
        step = provider(folder)
        losses[name] = [step(batch) for batch in tokens]
    ours, theirs = losses.values()
    assert ours == pytest.approx(theirs, abs=0.02)  # bfloat16: 3 digits of a loss of 6
    assert ours[0] != ours[-1]


@pytest.mark.slow
def test_a_row_says_where_it_comes_from(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    out = tmp_path / "rows.jsonl"
    arguments = ["--shape", "tiny", "--turns", "2", "--threads", "1", "--out", str(out)]
    assert main(["bench", "train", *arguments]) == 0
    (row,) = [json.loads(line) for line in out.read_text().splitlines()]
    assert row.keys() == KEYS
    assert (row["provider"], row["steps"], len(row["losses"])) == ("ours", 2 * BLOCK, WARM + 2 * BLOCK)
    assert row["tokens_per_s"] == pytest.approx(1e3 * row["tokens_a_step"] / row["ms"], rel=1e-3)
    assert row["peak_bytes"] > 1e8 and row["versus_ours"] is None
    assert "ours" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--shape", "8b"], "shape must be one of tiny, 167m, got '8b'"),
        (["--turns", "0"], "--turns must be at least 1"),
    ],
)
def test_a_mistake_is_told(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "train", *arguments]) == 2
    assert message in capsys.readouterr().err
