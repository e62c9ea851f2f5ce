"""Settings of torch's libraries on a CPU: put in where the caller has none, in force, and memory that stays bounded."""

import json
import re
from pathlib import Path

import pytest
from child_process import environment, run_python

from lowrank.cpu_runtime import KEPT, PRIMITIVES, WAITING, set_defaults


def test_the_callers_settings_are_left() -> None:
    found = {"LRU_CACHE_CAPACITY": "7"}
    set_defaults(found)
    assert found == {**KEPT, **WAITING, "LRU_CACHE_CAPACITY": "7"}
    passive = {"OMP_WAIT_POLICY": "PASSIVE"}
    set_defaults(passive)
    assert passive == {**KEPT, "OMP_WAIT_POLICY": "PASSIVE"}


def bare(**changes: str) -> dict[str, str]:
    """The environment without any of the settings."""
    named = {*KEPT, *WAITING, "OMP_WAIT_POLICY"}
    return {name: value for name, value in environment(**changes).items() if name not in named}


PRODUCTS = """
import torch
import lowrank
weight = torch.randn(64, 64)
def product(rows):
    torch.ops.mkldnn._linear_pointwise(torch.randn(rows, 64), weight, None, "none", [], "")
for rows in range(1, {more} + 3):
    product(rows)
print("again", flush=True)
product({more})
product(1)
"""


@pytest.mark.slow
def test_onednn_keeps_so_many_primitives_and_no_more_also_where_torch_was_imported_first() -> None:
    code = PRODUCTS.format(more=PRIMITIVES)
    done = run_python("-c", code, env=bare(ONEDNN_VERBOSE="profile_create", OMP_NUM_THREADS="1"))
    after = done.stdout.partition("again")[2]
    products = [line for line in after.splitlines() if re.search(r"create:cache_\w+,cpu,(inner_product|matmul)", line)]
    if not products:
        pytest.skip("this build of torch has no oneDNN")
    kept, made = (re.search(r"create:cache_(\w+)", line)[1] for line in products)
    assert (kept, made) == ("hit", "miss")


@pytest.mark.slow
def test_threads_that_wait_do_not_spin_for_long() -> None:
    done = run_python("-c", "import lowrank, torch", env=bare(OMP_DISPLAY_ENV="verbose"))
    spins = re.search(r"GOMP_SPINCOUNT = '(\d+)'", done.stderr)
    if spins is None:
        pytest.skip("torch's OpenMP here is not GNU's")
    assert spins[1] == WAITING["GOMP_SPINCOUNT"]


STEPS = """
import json, sys
import torch
torch.set_num_threads(1)
import lowrank
from lowrank.data.encoding.batching import Example
from lowrank.train.config import TrainConfig
from lowrank.train.monitor import NullMonitor
from lowrank.train.plan.flops import resident_bytes
from lowrank.train.trainer import Trainer

model = lowrank.load(sys.argv[1], "nf4-dq", torch.bfloat16)
generator = torch.Generator().manual_seed(0)
rows = [torch.randint(3, 512, (20 + 37 * number % 180,), generator=generator).tolist() for number in range(60)]
examples = [Example(str(number), tuple(row), (-100, *row[1:])) for number, row in enumerate(rows)]
assert len(set(map(len, examples))) == 60
config = TrainConfig.from_dict({"base": {"dtype": "bf16"}, "run": {"out": sys.argv[2], "epochs": 1, "batch": 1}})
run, resident = Trainer(model, examples, config), []
with run.prepared():
    for number, batches in run.schedule.from_step(0):
        run.checkpoints.save = lambda *_: None
        run.step(number, batches, NullMonitor())
        resident.append(resident_bytes())
print(json.dumps(resident))
"""


@pytest.mark.long
def test_memory_does_not_grow_over_sixty_steps_of_as_many_lengths(golden: Path, tmp_path: Path) -> None:
    done = run_python("-c", STEPS, golden / "meta-tiny-mha", tmp_path, env=bare(OMP_NUM_THREADS="1"))
    resident = json.loads(done.stdout)
    print([round(size / 1e6) for size in resident[::10]])
    # The longest row so far decides: it has been seen after ten steps. A primitive a shape would be some 0.3 MB.
    assert resident[-1] - resident[15] < 45 * 20 * 0.3e6 / 4
