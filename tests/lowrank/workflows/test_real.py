"""`make real`: figures over seeds, and a file that is not the one that was meant. `.ci/run` has the run itself."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lowrank.workflows.real import LICENCE, MEASURES, MODEL, adapter_name, fetch, over_seeds, paired_losses, real


def cell(adapter: str | None, loss: float, *, weights: str = "nf4-dq", grounded: bool = False) -> Any:
    column = SimpleNamespace(adapter=adapter, weights=weights, grounded=grounded)
    return SimpleNamespace(column=column, scores=dict.fromkeys(MEASURES, loss))


def test_hats_that_differ_in_their_seed_alone_are_one_row_with_an_interval() -> None:
    hats = [cell(adapter_name(seed, "nf4-dq"), loss) for seed, loss in enumerate((1.0, 2.0, 3.0))]
    none, four_bit, full = over_seeds([cell(None, 9.0), *hats, cell(adapter_name(0, "fp32"), 4.0)])
    assert (none["trained_on"], four_bit["trained_on"], full["trained_on"]) == ("none", "4bit", "full")
    assert four_bit["loss"]["values"] == [1.0, 2.0, 3.0] and four_bit["loss"]["mean"] == 2.0
    assert four_bit["loss"]["half_width"] == pytest.approx(4.303 / 3**0.5, rel=1e-3)  # s = 1, t of two degrees
    assert none["loss"]["half_width"] is None and full["n"] == 1


def test_a_score_without_a_value_is_left_out_of_the_mean() -> None:
    hats = [cell(adapter_name(seed, "nf4-dq"), loss) for seed, loss in enumerate((1.0, float("nan"), 3.0))]
    (row,) = over_seeds(hats)
    assert row["binding"]["mean"] == 2.0 and row["binding"]["values"] == [1.0, None, 3.0]
    (row,) = over_seeds([cell(None, float("nan"))])
    assert row["binding"]["mean"] is None and row["binding"]["half_width"] is None
    json.dumps(row, allow_nan=False)


def test_precisions_and_ways_of_writing_are_rows_of_their_own() -> None:
    cells = [cell("0-4bit", 1.0, weights=w, grounded=g) for w in ("nf4-dq", "fp32") for g in (False, True)]
    assert [(row["tested_on"], row["grounded"]) for row in over_seeds(cells)] == [
        ("nf4-dq", False),
        ("nf4-dq", True),
        ("fp32", False),
        ("fp32", True),
    ]


def test_losses_on_both_precisions_are_paired_by_hat() -> None:
    cells = [cell(None, 2.0), cell(None, 1.5, weights="bf16")]
    for seed, (four_bit, full) in enumerate(((1.0, 1.1), (1.3, 1.6))):
        cells += [cell(f"{seed}-4bit", four_bit), cell(f"{seed}-4bit", full, weights="bf16")]
        cells += [cell(f"{seed}-4bit", 9.0, grounded=True), cell(f"{seed}-4bit", 0.0, weights="bf16", grounded=True)]
    cells += [cell("0-full", 1.0)]  # tested on one of them: no pair
    found = paired_losses(cells)
    assert found.keys() == {"none", "4bit"} and found["none"]["values"] == [-0.5]
    assert found["4bit"]["values"] == pytest.approx([0.1, 0.3])
    assert found["4bit"]["mean"] == pytest.approx(0.2)
    assert found["4bit"]["half_width"] == pytest.approx(12.706 * 0.1)  # s = 0.1 sqrt(2), t of one degree


def test_another_file_in_the_cache_is_refused(tmp_path: Path) -> None:
    (tmp_path / MODEL).write_bytes(b"GGUF")
    with pytest.raises(ValueError, match="must have the SHA-256 b179c9523d0e6a0f, has"):
        fetch(tmp_path)


def test_a_folder_of_other_settings_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    (tmp_path / LICENCE).write_text("Apache-2.0")
    settings = {"n": 20, "entries": 100, "epochs": 3, "dtype": "fp32"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/settings.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"was begun with dtype fp32, got bf16: give another folder"):
        real(tmp_path / MODEL, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["settings.json"]
