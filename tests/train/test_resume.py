"""A run that is killed, again and again and at any moment, comes to the losses and weights of one that is not."""

import json
import subprocess
import sys
from pathlib import Path

# One process imports torch and loads the base; every attempt is a fork of it, which it kills.
KILL = """
import json, os, random, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
import lowrank
from lowrank.data.batching import Example
from lowrank.train.config import TrainConfig
from lowrank.train.loop import train

base, out, kills = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
generator = torch.Generator().manual_seed(0)
examples = []
for number in range(22):
    tokens = tuple(torch.randint(3, 512, (6 + number % 9,), generator=generator).tolist())
    examples.append(Example(str(number), tokens, (-100, *tokens[1:])))
model = lowrank.load(base, "nf4-dq")

def config(name):
    return TrainConfig.from_dict({
        "adapter": {"rank": 4, "dropout": 0.1},
        "optimizer": {"lr": 1e-3, "schedule": "cosine", "states": "8bit"},
        "run": {"out": str(out / name), "epochs": 3, "batch": 2, "accumulate": 3, "checkpoint_every": 1,
                "checkpoint_minutes": 1e-9, "keep": 2},
    })

def attempt(name, resume, seconds=None):
    child = os.fork()
    if child == 0:
        train(model, examples, config(name), resume=resume, overwrite=not resume, progress=False)
        os._exit(0)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

started = time.monotonic()
assert attempt("whole", False) == 0
whole = time.monotonic() - started
draw, done, runs, cursors = random.Random(0), 0, 0, set()
while done < kills:
    name, runs, status = f"cut-{runs}", runs + 1, 9
    while status != 0:
        folder = out / name / "checkpoints"
        names = sorted(path.name for path in folder.glob("step-*")) if folder.is_dir() else []
        cursors.update(names[-1:])
        last = done >= kills
        status = attempt(name, bool(names), None if last else draw.uniform(0, whole / 4))
        done += status != 0
print(json.dumps({"kills": done, "runs": runs, "cursors": sorted(cursors)}))
"""


def losses(run: Path) -> list[dict[str, object]]:
    rows = [json.loads(line) for line in (run / "train.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def test_twenty_kills_change_no_bit(golden: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILL, str(golden / "meta-tiny-mha"), str(tmp_path), "20"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stdout)
    print(told)
    assert told["kills"] >= 20
    assert any("-batch-" in name for name in told["cursors"])  # some were resumed from the middle of a step
    for number in range(told["runs"]):
        run = tmp_path / f"cut-{number}"
        assert losses(run) == losses(tmp_path / "whole")
        name = "hat/adapter_model.safetensors"
        assert (run / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
