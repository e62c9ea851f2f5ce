"""The cost of a pass over a few tokens of one text, beside one over a token: measured, committed in pass_costs.json.

Nothing is timed while a program runs, so a machine drafts the same tokens every time. A row names an instruction set, a
dtype, how the linears are stored ("dense", "4-bit", "int8") and how much of them there is ("small": up to 16 MB of
weights in the blocks, which stay in a cache; "large"); an empty name is any. The first row that fits is taken.
"""

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from ..kernels.cpu import library
from ..model.llama import Llama
from .quant_linear import QuantLinear

FILE = Path(__file__).with_name("pass_costs.json")
SMALL_BYTES = 16e6  # of the linears of all blocks


def pass_costs(model: Llama) -> Sequence[float]:
    """The costs of a pass over 1, 2, .. tokens, that of one being 1; none but that where no row is known."""
    if not len(model.layers) or library.unavailable_reason():
        return (1.0,)
    return costs_of(*asked_for(model))


def asked_for(model: Llama) -> tuple[str, str, str, str]:
    """Instruction set, dtype, storage and size of a model, by the names of the rows."""
    dtype = model.tok_embeddings.weight.dtype
    formats = (module.format for module in model.layers.modules() if isinstance(module, QuantLinear))
    stored = next(formats, None)
    storage = "dense" if stored is None else "int8" if stored == "int8" else "4-bit"
    bits = {"dense": 8 * dtype.itemsize, "int8": 8, "4-bit": 4}[storage]
    weights = len(model.layers) * sum(rows * columns for rows, columns in model.config.linear_shapes().values())
    size = "small" if weights * bits / 8 <= SMALL_BYTES else "large"
    return library.instruction_set(), str(dtype).removeprefix("torch."), storage, size


@cache
def costs_of(instruction_set: str, dtype: str, storage: str, size: str) -> Sequence[float]:
    """The costs of the first row that fits."""
    asked = instruction_set, dtype, storage, size
    for row in json.loads(FILE.read_text(encoding="utf-8")):
        names = row["instruction_set"], row["dtype"], row["storage"], row["size"]
        if all(name in ("", wanted) for name, wanted in zip(names, asked, strict=True)):
            return tuple(row["costs"])
    return (1.0,)
