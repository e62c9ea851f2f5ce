"""Two and three processes on the CPU: the run of one, to rounding, and checkpoints that any number goes on from."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lowrank.train.checkpoint import Checkpoints

RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import lowrank
from lowrank.data.batching import Example
from lowrank.train import loop
from lowrank.train.config import TrainConfig
from lowrank.train.team import Team

base, out = sys.argv[1], Path(sys.argv[2])
generator = torch.Generator().manual_seed(0)
examples = []
for number in range(13):  # batches of 4, so that the last has one row: with 2 or 3 processes some have none of it
    tokens = tuple(torch.randint(3, 512, (6 + number % 5,), generator=generator).tolist())
    examples.append(Example(str(number), tokens, (-100, *tokens[1:])))

def config(name, **run):
    return TrainConfig.from_dict({
        "adapter": {"rank": 3},  # which is cut unevenly
        "optimizer": {"lr": 1e-3, "states": "paged"},
        "run": {"out": str(out / name), "epochs": 3, "batch": 4, "accumulate": 2, "checkpoint_minutes": 1e-9, **run},
    })

def run(name, team, resume=False, stop=None, **options):
    calls, original = [], loop.take_batch
    def counted(*arguments):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(None)
        original(*arguments)
    loop.take_batch = counted
    try:
        model, how = lowrank.load(base, "nf4-dq"), {"resume": resume, "overwrite": not resume, "progress": False}
        loop.train(model, examples, config(name, **options), team=team, **how)
    except KeyboardInterrupt:
        pass
    finally:
        loop.take_batch = original
"""

SEVERAL = (
    RUN
    + """
from lowrank.train.distributed import Processes
team = Processes(shards=False)
size = team.size
run(f"replicas-{size}", team)
team.shards = True
run(f"shards-{size}", team, parallel="shards")
if size == 2:
    run("cut", team, parallel="shards", stop=5)  # in the middle of the third step
    team.shards = False
    run("cut-replicas", team, stop=5)
else:
    run("cut-for-3", team, resume=True, parallel="shards")
    run("cut-replicas-for-3", team, resume=True, parallel="shards")
    team.shards = False
    run("cut-for-3-replicas", team, resume=True)
team.close()
"""
)

ALONE = (
    RUN
    + """
run("alone", Team()) if sys.argv[3] == "whole" else run("cut-for-1", Team(), resume=True)
"""
)

DIES = (
    RUN
    + """
from lowrank.train.distributed import Processes
team = Processes(shards=True)
original, calls = loop.take_batch, []
def dying(*arguments):
    calls.append(None)
    if team.rank == 1 and len(calls) == 4:
        raise RuntimeError("the disk of rank 1 is gone")
    original(*arguments)
loop.take_batch = dying
loop.train(lowrank.load(base, "nf4-dq"), examples, config("dies", parallel="shards"), progress=False, team=team)
"""
)


def launch(code: str, processes: int, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = folder / f"run-{processes}.py"
    script.write_text(code)
    command = [sys.executable, str(script), *arguments]
    if processes > 1:
        count = ("--standalone", "--nproc-per-node", str(processes))
        command[1:1] = ["-m", "torch.distributed.run", *count]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def out(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every run, by name: alone, with 2 and 3 processes, and those that another number has gone on with."""
    folder = tmp_path_factory.mktemp("several")
    base = str(golden / "meta-tiny-mha")

    def done(code: str, processes: int, *arguments: str) -> None:
        result = launch(code, processes, folder, base, str(folder), *arguments)
        assert result.returncode == 0, result.stderr[-3000:]

    done(ALONE, 1, "whole")
    done(SEVERAL, 2)
    for name in ("cut-for-3", "cut-for-3-replicas", "cut-for-1"):
        shutil.copytree(folder / "cut", folder / name)
    shutil.copytree(folder / "cut-replicas", folder / "cut-replicas-for-3")
    done(SEVERAL, 3)
    done(ALONE, 1, "cut")
    return folder


def rows(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "name",
    [
        *("replicas-2", "shards-2", "replicas-3", "shards-3"),
        *("cut-for-3", "cut-for-3-replicas", "cut-replicas-for-3", "cut-for-1"),
    ],
)
def test_the_curve_and_the_hat_are_those_of_one_process(name: str, out: Path) -> None:
    alone, several = rows(out / "alone"), rows(out / name)
    assert len(alone) == len(several) == 6
    for one, other in zip(alone, several, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
        assert (other["tokens"], other["supervised_tokens"]) == (one["tokens"], one["supervised_tokens"])
    matrices, others = (load_file(out / run / "hat" / "adapter_model.safetensors") for run in ("alone", name))
    assert matrices.keys() == others.keys()
    largest = max(matrix.abs().max() for key, matrix in matrices.items() if "lora_B" in key)
    for key, matrix in matrices.items():
        assert (others[key] - matrix).abs().max() < 0.05 * largest  # Adam's first steps are the sign of a gradient


def test_each_process_wrote_its_part_of_the_checkpoint(out: Path) -> None:
    checkpoints = Checkpoints(out / "cut", keep=2)
    newest = checkpoints.path(checkpoints.cursors()[-1])
    assert newest.name == "step-00000002-batch-0001.parts"
    assert len(list(newest.glob("*.distcp"))) == 2 and (newest / "state.pt").is_file()
    assert not [path for path in (out / "cut" / "checkpoints").iterdir() if path.name.startswith(".")]


def test_a_process_that_dies_stops_the_others_with_its_error(golden: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    result = launch(DIES, 2, tmp_path, str(golden / "meta-tiny-mha"), str(tmp_path))
    assert result.returncode != 0
    assert "the disk of rank 1 is gone" in result.stderr
    assert time.monotonic() - started < 60


def test_more_processes_than_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lowrank.train import distributed
    from lowrank.train.config import TrainConfig
    from lowrank.train.run import join
    from lowrank.train.team import Team

    class Many(Team):
        size = 9

        def __init__(self, shards: bool) -> None:
            self.shards = shards

    monkeypatch.setattr(distributed, "Processes", Many)
    monkeypatch.setenv("WORLD_SIZE", "9")
    with pytest.raises(ValueError, match=r"run\.batch = 8 rows cannot be shared by 9 processes"):
        join(TrainConfig())
