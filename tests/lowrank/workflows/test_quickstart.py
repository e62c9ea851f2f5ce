"""The main job, run once as a newcomer runs it, and what it has to show."""

import json
from pathlib import Path

import pytest

from lowrank.model.checkpoint import open_checkpoint
from lowrank.workflows.quickstart import FOUR_BIT, FULL, NAME, quickstart

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("quickstart") / "out"
    quickstart(folder, progress=False)
    return folder


@pytest.fixture(scope="module")
def grid(out):
    rows = json.loads((out / "eval.json").read_text())
    return {(row["adapter"], row["weights"]): row for row in rows}


def test_the_folder_holds_what_was_promised(out) -> None:
    names = {path.name for path in out.iterdir()}
    assert {"base-nf4-dq", "hat", "eval.json", "documents", "report.html", "train.jsonl", "test.jsonl"} <= names
    assert open_checkpoint(out / "base-nf4-dq").is_quantized
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {path.name for path in (out / "hat").iterdir()}
    assert len(list((out / "documents").glob("*.md"))) == 4 * 20


@pytest.mark.parametrize("weights", [FOUR_BIT, FULL])
def test_the_hat_lowers_the_loss_by_a_quarter_and_writes_every_section(grid, weights) -> None:
    base, hat = grid[None, weights], grid[NAME, weights]
    assert hat["loss"] <= 0.75 * base["loss"]
    assert hat["sections"] >= 0.95
    assert base["sections"] < 0.2


@pytest.mark.parametrize("weights", [FOUR_BIT, FULL])
def test_the_figures_that_the_hat_writes_are_those_of_the_record_behind_their_own_labels(grid, weights) -> None:
    hat = grid[NAME, weights]
    assert hat["figure_precision"] >= 0.90
    assert hat["figure_recall"] >= 0.85
    assert hat["binding"] >= 0.85


@pytest.mark.parametrize("adapter", [None, NAME])
def test_4_bit_costs_less_than_0_02_nats(grid, adapter) -> None:
    assert abs(grid[adapter, FOUR_BIT]["loss"] - grid[adapter, FULL]["loss"]) < 0.02


def test_the_page_shows_the_figures_of_eval_json(out, grid) -> None:
    page = (out / "report.html").read_text()
    for row in grid.values():
        assert f"{row['loss']:.3f}" in page
    assert "<svg" in page and "http://" not in page and "https://" not in page


def test_the_same_training_seed_gives_the_same_first_losses(out, tmp_path: Path) -> None:
    from lowrank.train.config import TrainConfig
    from lowrank.train.from_config import train_from_config
    from lowrank.workflows.quickstart import RECIPE

    recipe = {**RECIPE, "run": {**RECIPE["run"], "out": str(tmp_path)}}
    steps = []

    class Enough(Exception):
        pass

    from lowrank.train import trainer

    original = trainer.finish

    def five(*args):
        if len(steps) == 5:
            raise Enough
        steps.append(original(*args))
        return steps[-1]

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Enough):
        patch.setattr(trainer, "finish", five)
        train_from_config(TrainConfig.from_dict(recipe), progress=False)
    logged = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [row["loss"] for row in steps] == [row["loss"] for row in logged[:5]]
