"""A step of training by exact numerics on NEON: every call of the C library is recorded, and made again under qemu.

The recorded calls become a C program: each argument that is the address of a tensor is a place in a block of memory,
which holds what was there before the calls. The program makes them, and writes the block out as they leave it.
"""

import ctypes
import os
import shutil
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from child_process import run
from torch import Tensor

import lowrank
from lowrank.adapters import adapter_parameters
from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import rows_of_one
from lowrank.kernels.cpu import exact, library
from lowrank.train.exact.llama import ExactNextToken
from lowrank.train.exact.optim import ExactAdamW, ExactProcess

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(library.unavailable_reason()), reason=library.unavailable_reason()),
]

ROOT = Path(__file__).resolve().parents[3]
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"
ALIGNMENT = 64
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
#include "api.h"
static char *memory;
#define AT(place) ((void *)(memory + (place)))
int main(int count, char **names)
{
    if (count != 3)
        return 1;
    memory = aligned_alloc(64, %(bytes)d);
    FILE *from = fopen(names[1], "rb"), *to = fopen(names[2], "wb");
    if (!memory || !from || !to || fread(memory, 1, %(bytes)d, from) != %(bytes)d)
        return 1;
    int failed = 0;
%(calls)s
    return failed || fwrite(memory, 1, %(bytes)d, to) != %(bytes)d || fclose(to);
}
"""


class Recorder:
    """Takes the place of `exact.call`: makes each call, and keeps its memory as it was before and after."""

    def __init__(self) -> None:
        self.before, self.after, self.calls = bytearray(), bytearray(), list[str]()

    def __call__(self, name: str, *arguments: Any) -> int:
        tensors = dict(tensors_of(sys._getframe(1)))
        places = {address: self.place(tensor) for address, tensor in tensors.items()}
        results = [given._obj for given in arguments if isinstance(getattr(given, "_obj", None), ctypes.c_double)]
        places |= {ctypes.addressof(one): self.place(bytes(one)) for one in results}
        words = [word(given, places) for given in arguments]
        status = library.call(name, *arguments)
        for address, tensor in tensors.items():
            self.write_after(places[address], numbers_of(tensor))
        for one in results:
            self.write_after(places[ctypes.addressof(one)], bytes(one))
        self.calls.append(f"    failed |= lowrank_{name}({', '.join(words)}, 2);")
        return status

    def place(self, held: Tensor | bytes) -> int:
        """The place of a copy of what a tensor holds."""
        place, numbers = len(self.before), numbers_of(held) if isinstance(held, Tensor) else held
        filled = numbers + bytes(-len(numbers) % ALIGNMENT)
        self.before += filled
        self.after += filled
        return place

    def write_after(self, place: int, numbers: bytes) -> None:
        self.after[place : place + len(numbers)] = numbers


def tensors_of(frame: FrameType) -> Iterator[tuple[int, Tensor]]:
    """The tensors of a function that makes a call, by their addresses."""
    for value in frame.f_locals.values():
        for one in value if isinstance(value, tuple) else (value,):
            if isinstance(one, Tensor):
                yield one.data_ptr(), one


def numbers_of(tensor: Tensor) -> bytes:
    """The memory from the first number of a tensor to its last, with what lies between in strides."""
    reach = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    reach = reach if tensor.numel() else 0
    return tensor.detach().as_strided((reach,), (1,)).numpy().tobytes()


def word(given: Any, places: dict[int, int]) -> str:
    """An argument in C."""
    if given is None:
        return "NULL"
    structure = getattr(given, "_obj", None)
    if isinstance(structure, ctypes.c_double):
        return f"AT({places[ctypes.addressof(structure)]})"
    if structure is not None:
        names = [name for name, _ in structure._fields_]
        fields = ", ".join(word(getattr(structure, name), places) for name in names)
        kind = {exact.Matrix: "exact_matrix", exact.Heads: "exact_heads", exact.AdamW: "exact_adamw"}[type(structure)]
        return f"&({kind}){{{fields}}}"
    if isinstance(given, float):
        return f"{given.hex()}"
    return f"AT({places[given]})" if given in places else f"{int(given)}"


def a_step(model: Any) -> None:
    """Forward, backward, clipping and update on rows of several lengths."""
    generator = torch.Generator().manual_seed(0)
    rows = [torch.randint(3, 512, (length,), generator=generator).tolist() for length in (9, 70, 33)]
    examples = [Example(str(i), tuple(row), tuple(row)) for i, row in enumerate(rows)]
    parameters = adapter_parameters(model, "hat")
    optimizer = ExactAdamW(parameters, weight_decay=0.1)
    for _ in range(2):  # B is zero at first, and A then has no gradient
        (ExactNextToken()(model, rows_of_one(examples)).nats / 100).backward()
        ExactProcess().clip(parameters.values(), 0.1)
        optimizer.step(1e-2)


@pytest.mark.long
def test_neon_makes_the_calls_of_a_step_to_the_same_bits(
    golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = [tool for tool in (CROSS, EMULATOR) if shutil.which(tool) is None]
    if missing and not os.environ.get("LOWRANK_NEON_REQUIRED"):
        pytest.skip(f"{' and '.join(missing)} not installed (Debian: gcc-aarch64-linux-gnu, qemu-user)")
    assert not missing
    recorder = Recorder()
    monkeypatch.setattr(exact, "call", recorder)
    model = lowrank.load(golden / "meta-tiny-gqa-mp2", "nf4-dq")
    lowrank.add_adapter(model, "hat", rank=4)
    lowrank.use_adapter(model, "hat")
    a_step(model.train())
    made = {call.partition("(")[0].removeprefix("    failed |= lowrank_") for call in recorder.calls}
    assert made == {name for name in library._SIGNATURES if name.startswith("exact_")}
    source = tmp_path / "calls.c"
    source.write_text(PROGRAM % {"bytes": len(recorder.before), "calls": "\n".join(recorder.calls)})
    (tmp_path / "before").write_bytes(recorder.before)
    program = compiled(source, tmp_path / "calls")
    files = tmp_path / "before", tmp_path / "after"
    run(EMULATOR, "-L", "/usr/aarch64-linux-gnu", program, *files)
    assert files[1].read_bytes() == recorder.after


def compiled(source: Path, program: Path) -> Path:
    """The program with the exact functions of the library, compiled for Arm as the package is."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extension = tomllib.load(file)["tool"]["setuptools"]["ext-modules"][0]
    sources = [ROOT / name for name in extension["sources"] if Path(name).parent.name == "exact"]
    include = [f"-I{ROOT / folder}" for folder in extension["include-dirs"]]
    run(CROSS, *extension["extra-compile-args"], *include, source, *sources, "-o", program, "-lm")
    return program
