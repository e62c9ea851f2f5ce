"""The sweep's bench: both sides compute the same first step, and a row says where it comes from."""

import json
from pathlib import Path

import pytest
import torch

from lowrank.bench.models.sides import SHAPES, make, random_tokens
from lowrank.bench.models.sweep import ADAPTERS, bars
from lowrank.bench.models.sweep_workers import ALONE, TOGETHER, alone, together
from lowrank.cli import main

pytestmark = pytest.mark.long


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_the_first_losses_are_the_base_s_on_both_sides(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    make(tmp_path, SHAPES["tiny"], random_tokens(SHAPES["tiny"], 2, ADAPTERS, 16))
    first, second = torch.load(tmp_path / "tokens.pt", weights_only=True)
    step = together(tmp_path)
    ours, theirs = step(first), alone(tmp_path)(first)
    assert len(ours) == len(theirs) == ADAPTERS
    assert ours[0] == pytest.approx(theirs[0], rel=1e-2)  # of hats that add nothing yet, in bfloat16
    assert step(second) != ours


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_a_row_a_side_and_length(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers")
    out = tmp_path / "rows.jsonl"
    assert main(["bench", "sweep", "--shape", "tiny", "--turns", "2", "--threads", "1", "--out", str(out)]) == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["provider"], row["tokens_a_row"]) for row in rows] == [
        (TOGETHER, 16),
        (ALONE, 16),
        (TOGETHER, 64),
        (ALONE, 64),
    ]
    assert all(row["versus_ours"] is None for row in rows[::2]) and rows[1]["versus_ours"]["ratio"] > 0
    assert ALONE in capsys.readouterr().out


def test_a_bar_is_held_or_missed() -> None:
    row = {"shape": "167m", "tokens_a_row": 64, "versus_ours": {"ratio": 1.3}}
    assert bars([row, {**row, "versus_ours": {"ratio": 1.1}}, {**row, "versus_ours": None}]) == [
        "64 tokens: 1.30 of at least 1.2: held",
        "64 tokens: 1.10 of at least 1.2: missed",
    ]
