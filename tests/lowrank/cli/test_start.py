"""The start of `lowrank generate` on a quantized folder: what is not imported, not hashed and not copied."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from child_process import run_python

import lowrank
from lowrank.checkpoints.fingerprint import Fingerprint
from lowrank.checkpoints.quantize_folder import quantize_folder

# Parts of torch that take a second, programs that are not asked, and floors that a prompt alone does not reach.
UNUSED = (
    *("torch._dynamo", "torch._inductor", "torch.distributed.fsdp", "sympy", "transformers", "peft", "pandas"),
    *("lowrank.train", "lowrank.eval", "lowrank.bench", "lowrank.serve", "lowrank.writing", "lowrank.grounding"),
    *("lowrank.data.facts", "lowrank.data.documents.facts_record", "lowrank.data.documents.kinds"),
)
WRITE = """
import json, sys
from lowrank.cli import main
status = main(["generate", sys.argv[1], "--prompt", "The balance", "--max-new-tokens", "3", "--json"])
print(json.dumps([status, sorted(sys.modules)]))
"""


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded base in 4 bits."""
    return quantize_folder("embedded", tmp_path_factory.mktemp("start") / "nf4", head="int8")


@pytest.mark.slow
def test_a_prompt_imports_no_compiler_and_no_floor_that_it_does_not_reach(quantized: Path) -> None:
    status, modules = json.loads(run_python("-c", WRITE, quantized).stdout.splitlines()[-1])
    assert status == 0
    unused = [name for name in modules if any(name == part or name.startswith(f"{part}.") for part in UNUSED)]
    assert unused == []


IMPORTS = """
import gc, sys
from lowrank.cli.start import import_torch
assert "torch" not in sys.modules
collected = []
gc.callbacks.append(lambda phase, info: collected.append(phase))
import_torch()
print(len(collected), "torch" in sys.modules, gc.isenabled(), gc.get_freeze_count() > 100_000)
gc.unfreeze()
import_torch()
print(gc.get_freeze_count())
gc.disable()
import_torch()
print(gc.isenabled())
"""


@pytest.mark.slow
def test_torch_is_imported_without_a_collection_and_left_out_of_later_ones() -> None:
    assert run_python("-c", IMPORTS).stdout.splitlines() == ["0 True True True", "0", "False"]


def test_nothing_is_hashed_where_the_fingerprint_is_recorded(quantized: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = lowrank.load("embedded").source["fingerprint"]
    monkeypatch.setattr(Fingerprint, "add", lambda *_: pytest.fail("a tensor was hashed"))
    assert lowrank.load(quantized).source["fingerprint"] == expected


def mapped(tensor: torch.Tensor) -> str:
    """The name of the file that the first number of a tensor is mapped from, "" for none."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, _, end = line.split()[0].partition("-")
        if int(begin, 16) <= tensor.data_ptr() < int(end, 16):
            return Path(line.split(maxsplit=5)[5]).name if len(line.split()) > 5 else ""
    return ""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc/self/maps")
def test_weights_stay_in_their_file_unless_their_type_is_another(quantized: Path) -> None:
    model = lowrank.load(quantized, dtype=torch.bfloat16)
    linear, head = model.get_submodule("layers.0.attention.wq"), model.get_submodule("output")
    places = {name: mapped(tensor) for name, tensor in [*linear.named_buffers(), *head.named_buffers()]}
    assert places["codes"] == places["scale"] == places["nested_absmax"] == "model.safetensors"
    stored = lowrank.load(quantized, dtype=torch.float32)
    assert mapped(stored.tok_embeddings.weight) != "model.safetensors"
    dense = lowrank.load("embedded", dtype=torch.bfloat16)
    assert mapped(dense.tok_embeddings.weight) != "consolidated.00.pth"  # of a folder that others may write into


def test_a_file_may_be_replaced_while_its_model_is_in_use(quantized: Path, tmp_path: Path) -> None:
    folder, tokens = tmp_path / "own", torch.arange(20)[None]
    shutil.copytree(quantized, folder)
    model = lowrank.load(folder)
    before = model(tokens)
    (tmp_path / "other").write_bytes(b"\0" * (folder / "model.safetensors").stat().st_size)
    (tmp_path / "other").replace(folder / "model.safetensors")
    assert torch.equal(model(tokens), before)
