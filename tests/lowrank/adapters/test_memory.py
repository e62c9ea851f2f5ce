"""The memory of loading and quantizing beside the result: at most two of the largest tensors, resident pages counted.

Measured in a process of its own on models whose largest tensor is most of them. Their files are sparse, so that they
cost no disk: weights are zero, which memory does not care about.
"""

import json
from pathlib import Path

import pytest
import torch
from child_process import run_python
from torch.serialization import skip_data

from lowrank.model.config_json import read_config

pytestmark = pytest.mark.slow

# dim, vocab_size, multiple_of: the largest tensor, of 2^25 numbers in 16 bits, is the embedding or a linear. It is
# twice the window through which files are mapped (model/tensor_file.py), that of a 7B eight times: a smaller one would
# make the test one of the window.
SHAPES = {"embedding": (512, 65_536, 64), "linear": (512, 512, 65_536)}
LARGEST = 2 * 2**25
BY_COLUMNS = ("tok_embeddings.weight", "wo.weight", "w2.weight")

MEASURE = """
import gc, json, sys
from pathlib import Path
import lowrank, torch
from lowrank.checkpoints.quantize_folder import quantize_folder

def resident(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(key))

def measured(work):
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here on
    kept = work()
    gc.collect()
    return resident("VmHWM") - resident("VmRSS")

for base, out in json.loads(sys.argv[1]):
    print(json.dumps({
        "load": measured(lambda: lowrank.load(base, "nf4-dq", torch.bfloat16)),
        "quantize": measured(lambda: quantize_folder(base, out)),
        "load quantized": measured(lambda: lowrank.load(out, dtype=torch.bfloat16)),
    }))
"""


def make_base(folder: Path, dim: int, vocab_size: int, multiple_of: int) -> Path:
    """One block in two shards."""
    params = {"dim": dim, "n_layers": 1, "n_heads": 8, "multiple_of": multiple_of, "vocab_size": vocab_size}
    folder.mkdir()
    (folder / "params.json").write_text(json.dumps(params))
    shard = {}
    for name, shape in read_config(folder).parameter_shapes().items():
        axis = 1 if name.endswith(BY_COLUMNS) else 0
        piece = [size // 2 if len(shape) == 2 and axis == place else size for place, size in enumerate(shape)]
        shard[name] = torch.empty(piece, dtype=torch.float16)
    for number in range(2):
        with skip_data():
            torch.save(shard, folder / f"consolidated.{number:02}.pth")
    return folder


@pytest.mark.long
def test_at_most_two_of_the_largest_tensors_are_held(golden: Path, tmp_path: Path) -> None:
    bases = [golden / "meta-tiny-gqa-mp2"]  # first, for whatever is imported and cached
    bases += [make_base(tmp_path / name, *shape) for name, shape in SHAPES.items()]
    least: dict[tuple[str, str], float] = {}
    for attempt in range(
        3
    ):  # what the system takes back from a process meanwhile adds to the difference, and never less
        pairs = [(str(base), str(tmp_path / f"{base.name}-nf4-{attempt}")) for base in bases]
        done = run_python("-c", MEASURE, json.dumps(pairs))
        for name, line in zip(SHAPES, done.stdout.splitlines()[1:], strict=True):
            for work, held in json.loads(line).items():
                least[name, work] = min(held / LARGEST, least.get((name, work), held / LARGEST))
        if max(least.values()) <= 2:
            break
    assert max(least.values()) <= 2, f"of the largest tensor: {least}"
