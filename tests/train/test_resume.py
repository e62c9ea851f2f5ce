"""A run that is killed, again and again and at any moment, comes to the losses and weights of one that is not."""

import json
from pathlib import Path

import pytest
from child_process import environment, run_python

pytestmark = pytest.mark.slow

# One process imports torch and loads the base; every attempt is a fork of it, which kills itself. A moment is a call of
# a function, counted in the fork: of every call, or of those inside one function of the trainer.
KILL = """
import json, os, random, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
import lowrank
from lowrank.data.encoding.batching import Example
from lowrank.train import trainer
from lowrank.train.checkpoint import Checkpoints
from lowrank.train.config import TrainConfig

base, out, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
generator = torch.Generator().manual_seed(0)
examples = []
for number in range(22):
    tokens = tuple(torch.randint(3, 512, (6 + number % 9,), generator=generator).tolist())
    examples.append(Example(str(number), tokens, (-100, *tokens[1:])))
model = lowrank.load(base, "nf4-dq")

# Where a kill may fall: anywhere, in forward and backward of a batch, in an optimizer step, in writing a checkpoint.
PLACES = {
    "run": trainer.train.__code__,
    "batch": trainer.accumulate.__code__,
    "optimizer": trainer.finish.__code__,
    "checkpoint": Checkpoints.save.__code__,
}

def config(name):
    return TrainConfig.from_dict({
        "adapter": {"rank": 4, "dropout": 0.1},
        "optimizer": {"lr": 1e-3, "schedule": "cosine", "states": "8bit"},
        "run": {"out": str(out / name), "epochs": 3, "batch": 2, "accumulate": 3, "checkpoint_every": 1,
                "checkpoint_minutes": 1e-9, "keep": 2},
    })

class Count:
    # Calls inside each place; at `last` of them in `place`, the process ends.
    def __init__(self, place=None, last=0):
        self.place, self.last, self.inside, self.calls = place, last, set(), dict.fromkeys(PLACES, 0)

    def __call__(self, frame, event, argument):
        if event in ("call", "return"):
            for place, code in PLACES.items():
                if frame.f_code is code:
                    (self.inside.add if event == "call" else self.inside.discard)(place)
        if event in ("call", "c_call"):
            for place in self.inside:
                self.calls[place] += 1
            if self.place in self.inside and self.calls[self.place] == self.last:
                os.kill(os.getpid(), signal.SIGKILL)

def attempt(name, resume, place=None, last=0):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            count = Count(place, last)
            sys.setprofile(count)
            trainer.train(model, examples, config(name), resume=resume, overwrite=not resume, progress=False)
            sys.setprofile(None)
            (out / f"{name}.json").write_text(json.dumps(count.calls))
            status = 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    assert status == 0 or os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
    return status

def aside(name):
    return set((out / name / "checkpoints").glob(".*"))

def begun(name):
    return sorted(path.stem for path in (out / name / "checkpoints").glob("step-*"))

assert attempt("whole", False) == 0
calls = json.loads((out / "whole.json").read_text())
draw, runs, killed, partial, cursors = random.Random(0), 0, [], 0, set()
while len(killed) < kills:
    name, runs, status = f"cut-{runs}", runs + 1, None
    while status != 0:
        cursors.update(begun(name)[-1:])
        place = list(PLACES)[len(killed) % len(PLACES)]
        last = draw.randrange(1, calls[place] // 4) if len(killed) < kills else 0
        before = aside(name)
        status = attempt(name, bool(begun(name)), place if last else None, last)
        if status:
            killed.append(place)
            partial += aside(name) > before
print(json.dumps({
    "calls": calls, "killed": killed, "partial": partial, "runs": runs, "cursors": sorted(cursors),
}))
"""


def losses(run: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


@pytest.mark.long
def test_twenty_kills_change_no_bit(golden: Path, tmp_path: Path) -> None:
    done = run_python("-c", KILL, golden / "meta-tiny-mha", tmp_path, 20, env=environment(OMP_NUM_THREADS="1"))
    told = json.loads(done.stdout)
    print(told)
    assert len(told["killed"]) == 20 and set(told["killed"]) == {"run", "batch", "optimizer", "checkpoint"}
    assert told["partial"]  # some fell between the first byte of a checkpoint and its name
    assert any("-batch-" in name for name in told["cursors"])  # some were resumed from the middle of a step
    for number in range(told["runs"]):
        run = tmp_path / f"cut-{number}"
        assert losses(run) == losses(tmp_path / "whole")
        name = "hat/adapter_model.safetensors"
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
