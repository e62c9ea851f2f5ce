"""The kernel that the table of `dispatch` chooses for a shape, with the reasons; the machine need not have the device.

M rows of x flattened, N out_features, K in_features.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from ..cpu.library import instruction_set, processor, unavailable_reason
from ..weights.prmt_table import can_use_prmt
from ..weights.quantized_weight import (
    BLOCKSIZES,
    QUANTIZED_NAMES,
    Blockwise4bit,
    QuantizedWeight,
    Repacked4bit,
    RowwiseInt8,
)
from ..weights.repack import not_repackable_reason
from .crossover import is_here
from .run import product_case
from .table import BACKWARD, FORWARD, OPS, QUANTIZE, Case, choice_reason, choose, is_repacked, short

LOOK_UP = "look-up"
ROWS = (*range(1, 65), *(2**i for i in range(7, 13)))  # M at which `paths_in_use` looks


@dataclass(frozen=True)
class Choice:
    """The path that `op` takes, and the reason: the objections to the faster ones, or its own merit."""

    op: str
    path: str
    reason: str


def explain(
    m: int,
    n: int,
    k: int,
    *,
    dtype: torch.dtype,
    device: str | torch.device,
    format: str = "nf4-dq",
    blocksize: int = 64,
) -> list[Choice]:
    """The path of each operation for x [m, k] in `dtype` and W [n, k] in `format`, and why it is that one.

    W is in the layout that `ops.to_fast_layout` gives it: on a GPU repacked, where it can be. A last entry, "look-up",
    says how codes become levels in the kernels, and whether that was run here on a GPU, or only emulated and
    interpreted. `device` need not exist: "cuda" on a machine without a GPU says what a GPU would do that was not
    measured.
    Raises ValueError for a negative size, and another device, format or blocksize than there are.
    """
    for name, size in (("m", m), ("n", n), ("k", k)):
        if size < 0:
            raise ValueError(f"{name} must be at least 0, got {size}")
    if format not in QUANTIZED_NAMES:
        raise ValueError(f"format must be one of {', '.join(QUANTIZED_NAMES)}, got {format!r}")
    if blocksize not in BLOCKSIZES:
        raise ValueError(f"blocksize must be a power of two from {BLOCKSIZES[0]} to {BLOCKSIZES[-1]}, got {blocksize}")
    try:
        where = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device {device!r}: {str(error).splitlines()[0]}") from None
    quantized: type[QuantizedWeight] = RowwiseInt8 if format == "int8" else Blockwise4bit
    repacked = format != "int8" and is_repacked((n, k), blocksize, format, dtype, where)
    layout: type[QuantizedWeight] = Repacked4bit if repacked else quantized
    cases = [Case(op, m, n, k, dtype, where, format, quantized if op == QUANTIZE else layout, blocksize) for op in OPS]
    choices = [Choice(case.op, choose(case).name, _explained_reason(case)) for case in cases]
    if any(choose(case).has_lookup for case in cases):
        choices.append(Choice(LOOK_UP, *_look_up(dtype, where)))
    return choices


def paths_in_use(weights: Iterable[QuantizedWeight], dtype: torch.dtype) -> dict[str, str]:
    """The path of products with the weights, from each M on where it changes: other paths round in another order.

    One line for each operation, shape and format, and on a CPU one that names the processor and the instruction set.
    """
    found: dict[str, str] = {}
    for weight in weights:
        device = weight.codes.device
        if device.type == "cpu":
            found["cpu"] = unavailable_reason() or f"{processor() or 'unnamed processor'}, {instruction_set()}"
        for op in (FORWARD, BACKWARD):
            cases = [product_case(op, m, weight, dtype, device) for m in ROWS]
            name = f"{op} {cases[0].n}x{cases[0].k} {weight.name} {short(dtype)} {device.type}"
            if name not in found:
                found[name] = ", ".join(f"{path} from M {m}" for path, m in _changes(cases))
    return found


def _changes(cases: Sequence[Case]) -> Iterator[tuple[str, int]]:
    """The paths of cases of rising M, each with the M where it begins."""
    before = ""
    for case in cases:
        path = choose(case).name
        if path != before:
            yield path, case.m
        before = path


def _explained_reason(case: Case) -> str:
    """The table's reason and, for a product that cannot read W in 4 bits, the rule of repacking that W breaks."""
    lacks = not_repackable_reason((case.n, case.k), case.blocksize)
    concerned = case.device.type == "cuda" and case.op in (FORWARD, BACKWARD) and case.layout is Blockwise4bit
    reason = choice_reason(case)
    return f"{reason}; not repacked: {lacks}" if concerned and lacks else reason


def _look_up(dtype: torch.dtype, device: torch.device) -> tuple[str, str]:
    """The method that turns codes into levels, and where it has been run: (name, reason)."""
    if not can_use_prmt(dtype, device):
        return "gather", f"levels are gathered from memory: the assembly is for 16-bit levels on NVIDIA, {short(dtype)}"
    if is_here(device):
        return "assembly, run on this GPU", torch.cuda.get_device_name(device)
    return (
        "assembly, emulated",
        "no such GPU here: its instructions are emulated for all inputs of four codes and compiled for three GPUs, "
        "its plain twin is interpreted (tests/kernels)",
    )
