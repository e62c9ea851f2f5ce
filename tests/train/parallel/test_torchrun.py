"""Two and three processes on the CPU: the run of one, to rounding, and checkpoints that any number goes on from."""

import json
import os
import re
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from child_process import environment, finish, run_python, start
from safetensors.torch import load_file

from lowrank.train.checkpoint import Checkpoints
from lowrank.train.parallel.heartbeat import BEAT, SILENCE

pytestmark = pytest.mark.long

RUN = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import lowrank
from lowrank.data.encoding.batching import Example
from lowrank.train import trainer
from lowrank.train.config import TrainConfig
from lowrank.train.parallel.single import SingleProcess
from lowrank.train.monitor import HeldOut

base, out = sys.argv[1], Path(sys.argv[2])
generator = torch.Generator().manual_seed(0)
examples = []
for number in range(13):  # batches of 4, so that the last has one row: with 2 or 3 processes some have none of it
    tokens = tuple(torch.randint(3, 512, (6 + number % 5,), generator=generator).tolist())
    examples.append(Example(str(number), tokens, (-100, *tokens[1:])))

class Words:
    eos_ids = (2,)
    def decode(self, tokens):
        return " ".join(map(str, tokens))

def config(name, **run):
    return TrainConfig.from_dict({
        "adapter": {"rank": 31},  # which is cut unevenly; the larger half of its matrices has moments of 8 bits
        "optimizer": {"lr": 1e-3, "states": "paged-8bit"},
        "run": {"out": str(out / name), "epochs": 2, "batch": 4, "accumulate": 2, "checkpoint_minutes": 1e-9, **run},
        "watch": {"held_out": "documents", "every": 2},
    })

def run(name, team, resume=False, stop=None, **options):
    calls, original = [], trainer.accumulate
    def counted(*arguments):
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(None)
        original(*arguments)
    trainer.accumulate = counted
    try:
        held_out = HeldOut(examples[:3], Words(), 2, 2)
        how = {"resume": resume, "overwrite": not resume, "progress": False, "held_out": held_out}
        model = lowrank.load(base, "nf4-dq", keep=team.keep_shard)
        trainer.train(model, examples, config(name, **options), team=team, **how)
    except KeyboardInterrupt:
        pass
    finally:
        trainer.accumulate = original
"""

SEVERAL = (
    RUN
    + """
from dataclasses import replace
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from torch.utils._python_dispatch import TorchDispatchMode
from lowrank.train.parallel.torchrun import TorchrunGroup
from lowrank.data.encoding.packing import rows_of_one
from lowrank.train.optim import AdamW
from lowrank.train.plan.plan import make_plan
from lowrank.train.step import batch_loss

def check_moments_in_8_bits(team, rows, columns):
    '''Of a matrix that is cut, given one process's gradients: its weights, codes and maxima, bit for bit.'''
    draw = torch.Generator().manual_seed(rows)
    whole = nn.Parameter(torch.randn(rows, columns, generator=draw))
    held = nn.Parameter(distribute_tensor(whole.detach().clone(), mesh, [Shard(0)], src_data_rank=None))
    alone = AdamW({"w": whole}, states="8bit")
    several = AdamW({"w": held}, states="paged-8bit", parts={"w": team.shard_of(held)})
    for _ in range(3):
        whole.grad = torch.randn(rows, columns, generator=draw)
        held.grad = team.shard_like(whole.grad.clone(), like=held)
        alone.step(1e-2), several.step(1e-2)
    assert torch.equal(team.gather(held.detach()), whole)
    for name, (parameter, tensor) in several.saved().items():
        assert torch.equal(team.gather(team.as_sharded(parameter, tensor)), alone.saved()[name][1]), name

class Loss(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model
    def forward(self, rows):
        return batch_loss(self.model, rows)[0]

def check_gradients_are_those_of_ddp(team):
    model, rows = lowrank.load(base, "nf4-dq"), rows_of_one(examples[:5])
    trainer.new_adapter(model, config("unused"))
    hat = trainer.adapter_parameters(model, "hat")
    draw = torch.Generator().manual_seed(0)
    for parameter in hat.values():  # B is not zero any more, so that A has a gradient
        parameter.data.normal_(0, 0.05, generator=draw)
    supervised = sum(row.supervised for row in rows)
    ddp = DistributedDataParallel(Loss(model))  # whose mean over processes is no sum
    (ddp(team.share(rows)) / supervised * team.size).backward()
    theirs = {name: parameter.grad.clone() for name, parameter in hat.items()}
    model.zero_grad()
    (batch_loss(model, team.share(rows))[0] / supervised).backward()
    team.clip(hat.values(), float("inf"))
    for name, parameter in hat.items():
        assert parameter.grad.abs().max() > 0
        torch.testing.assert_close(parameter.grad, theirs[name], rtol=1e-5, atol=1e-7)

class Counting(TorchDispatchMode):
    bytes = 0
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name() in ("c10d::_allgather_base_", "c10d::_reduce_scatter_base_"):
            self.bytes += max(tensor.nbytes for tensor in args[:2])
        return func(*args, **(kwargs or {}))

def check_traffic_is_that_of_the_plan(team):
    settings, counting = config("counted", epochs=1, parallel="shards"), Counting()
    settings = replace(settings, base=replace(settings.base, path=base), watch=type(settings.watch)())
    model = lowrank.load(base, "nf4-dq", keep=team.keep_shard)
    with counting:
        trainer.train(model, examples, settings, team=team, progress=False)
    received = counting.bytes * (team.size - 1) / team.size / 2  # in one of two steps
    (planned,) = [rank.traffic for rank in make_plan(settings, examples).ranks if rank.processes == team.size]
    assert abs(received / planned - 1) < 0.02, (received, planned)

with TorchrunGroup(shards=False) as team:
    size, mesh = team.size, init_device_mesh("cpu", (team.size,))
    for rows, columns in ((31, 133), (2, 2100), (64, 256)):
        check_moments_in_8_bits(team, rows, columns)
    run(f"replicas-{size}", team)
    check_gradients_are_those_of_ddp(team)
    team.shards = True
    if size == 2:
        check_traffic_is_that_of_the_plan(team)
    run(f"shards-{size}", team, parallel="shards")
    if size == 2:
        run("cut", team, parallel="shards", stop=5)  # in the middle of the third step
        run("stopped-shards", team, resume=True, parallel="shards")
        team.shards = False
        run("cut-replicas", team, stop=5)
        run("killed-replicas", team, resume=True)
    else:
        run("cut-for-3", team, resume=True, parallel="shards")
        run("cut-replicas-for-3", team, resume=True, parallel="shards")
        team.shards = False
        run("cut-for-3-replicas", team, resume=True)
        run("cut-replicas-for-3-replicas", team, resume=True)
"""
)

ALONE = (
    RUN
    + """
for name in sys.argv[3:]:
    run(name, SingleProcess(), resume=name != "alone")
"""
)

ENDS = (
    RUN
    + """
import os, signal
from lowrank.train.parallel import heartbeat
from lowrank.train.parallel.torchrun import TorchrunGroup
heartbeat.BEAT, heartbeat.SILENCE = 0.2, 3.0
how, parallel = sys.argv[3:]
with TorchrunGroup(parallel == "shards") as team:
    original, calls = trainer.accumulate, []
    def last(*arguments):
        calls.append(None)
        if team.rank == 1 and len(calls) == 4:
            if how == "raises":
                raise RuntimeError("the disk of rank 1 is gone")
            os.kill(os.getpid(), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
        original(*arguments)
    trainer.accumulate = last
    run(f"{how}-{parallel}", team, parallel=parallel)
"""
)


def script(code: str, name: str, folder: Path) -> Path:
    path = folder / f"{name}.py"
    path.write_text(code)
    return path


def one_thread(**more: str) -> dict[str, str]:
    """The environment of each of several processes."""
    return environment(OMP_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE", **more)


def launch(code: str, processes: int, folder: Path, *arguments: str) -> None:
    path = script(code, f"run-{processes}", folder)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", processes)
    run_python(*(torchrun if processes > 1 else ()), path, *arguments, env=one_thread())


ENDED = ("killed-replicas", "stopped-shards", "raises-replicas")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("several")


@pytest.fixture(scope="module")
def base(golden: Path) -> str:
    return str(golden / "meta-tiny-mha")


@pytest.fixture(scope="module")
def ends(folder: Path, base: str) -> dict[str, tuple[int, str, float]]:
    """Pairs of processes without torchrun, as on two machines, whose second one ends in the middle of a step.

    By name: the first one's status, what it said, and seconds from the second one's end.
    """
    path, pairs = script(ENDS, "ends", folder), {}
    for name in ENDED:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        how, parallel = name.split("-")
        pairs[name] = [
            start(
                *(sys.executable, path, base, folder, how, parallel),
                env=one_thread(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=port),
            )
            for rank in range(2)
        ]
    found = {}
    for name, (first, second) in pairs.items():
        os.waitid(os.P_PID, second.pid, os.WEXITED | os.WSTOPPED | os.WNOWAIT)
        ended = time.monotonic()
        done = finish(first, limit=120, check=False)
        found[name] = (done.returncode, done.stderr, time.monotonic() - ended)
        second.send_signal(signal.SIGKILL)
        finish(second, check=False)
    return found


@pytest.fixture(scope="module")
def out(folder: Path, base: str, ends: object) -> Path:
    """Every run, by name: alone, with 2 and 3 processes, and those that as many or others have gone on with."""

    def done(code: str, processes: int, *arguments: str) -> None:
        launch(code, processes, folder, base, str(folder), *arguments)

    for name in ("killed-replicas", "stopped-shards"):
        assert Checkpoints(folder / name, keep=2).cursors()[-1] == (1, 1)  # in the middle of the second step
    done(SEVERAL, 2)
    for name in ("cut-for-3", "cut-for-3-replicas", "cut-for-1"):
        shutil.copytree(folder / "cut", folder / name)
    for name in ("cut-replicas-for-3", "cut-replicas-for-3-replicas", "cut-replicas-for-1"):
        shutil.copytree(folder / "cut-replicas", folder / name)
    done(SEVERAL, 3)
    done(ALONE, 1, "alone", "cut-for-1", "cut-replicas-for-1")
    return folder


def rows(run: Path, name: str = "train.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / name).read_text().splitlines()]


@pytest.mark.parametrize(
    "name",
    [
        *("replicas-2", "shards-2", "replicas-3", "shards-3"),
        *("cut-for-3", "cut-for-3-replicas", "cut-for-1"),
        *("cut-replicas-for-3", "cut-replicas-for-3-replicas", "cut-replicas-for-1"),
    ],
)
def test_the_curve_and_the_hat_are_those_of_one_process(name: str, out: Path) -> None:
    alone, several = rows(out / "alone"), rows(out / name)
    assert len(alone) == len(several) == 4
    for one, other in zip(alone, several, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-4)
        assert (other["tokens"], other["supervised_tokens"]) == (one["tokens"], one["supervised_tokens"])
    matrices, others = (load_file(out / run / "hat" / "adapter_model.safetensors") for run in ("alone", name))
    assert matrices.keys() == others.keys()
    largest = max(matrix.abs().max() for key, matrix in matrices.items() if "lora_B" in key)
    for key, matrix in matrices.items():
        assert (others[key] - matrix).abs().max() < 0.05 * largest  # Adam's first steps are the sign of a gradient


@pytest.mark.parametrize("name", ["replicas-2", "shards-2", "shards-3"])
def test_the_held_out_loss_and_the_documents_are_those_of_one_process(name: str, out: Path) -> None:
    alone, several = rows(out / "alone", "held_out.jsonl"), rows(out / name, "held_out.jsonl")
    assert [row["step"] for row in alone] == [row["step"] for row in several] == [2, 4]
    for one, other in zip(alone, several, strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        assert other["samples"] == one["samples"]
        assert [len(sample["text"].split()) for sample in other["samples"]] == [7, 9]


@pytest.mark.parametrize(("name", "cut"), [("replicas-2", "killed-replicas"), ("shards-2", "stopped-shards")])
def test_as_many_processes_go_on_bit_for_bit_from_the_middle_of_a_step(name: str, cut: str, out: Path) -> None:
    whole, again = out / name, out / cut
    assert [{**row, "seconds": 0} for row in rows(again)] == [{**row, "seconds": 0} for row in rows(whole)]
    for file in ("hat", "hat-best"):
        name = f"{file}/adapter_model.safetensors"
        assert (again / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize(("name", "parts"), [("cut", "*.distcp"), ("cut-replicas", "gradient-*.pt")])
def test_each_process_wrote_its_part_of_the_checkpoint(name: str, parts: str, out: Path) -> None:
    checkpoints = Checkpoints(out / name, keep=2)
    newest = checkpoints.path(checkpoints.cursors()[-1])
    assert newest.name == "step-00000002-batch-0001.parts"
    assert len(list(newest.glob(parts))) == 2 and (newest / "state.pt").is_file()
    assert not [path for path in newest.parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("name", ENDED)
def test_a_process_that_ends_ends_the_others_and_is_named(name: str, ends: dict[str, tuple[int, str, float]]) -> None:
    status, said, seconds = ends[name]
    print(seconds)
    assert status == 1
    what = (
        "stopped: RuntimeError: the disk of rank 1 is gone" if "raises" in name else r"\(.+, process \d+\) is dead or"
    )
    assert re.search(rf"^rank 0 ends: rank 1 {what}", said, re.MULTILINE), said
    assert seconds < 60 and SILENCE + 4 * BEAT < 60  # of which the pairs wait for less


def test_more_processes_than_rows_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from lowrank.train.config import TrainConfig
    from lowrank.train.from_config import join
    from lowrank.train.parallel import torchrun as distributed
    from lowrank.train.parallel.single import SingleProcess

    class Many(SingleProcess):
        size = 9

        def __init__(self, shards: bool) -> None:
            self.shards = shards

    monkeypatch.setattr(distributed, "TorchrunGroup", Many)
    monkeypatch.setenv("WORLD_SIZE", "9")
    with pytest.raises(ValueError, match=r"run\.batch = 8 rows cannot be shared by 9 processes"):
        join(TrainConfig())
