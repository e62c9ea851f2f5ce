"""Hats of PEFT whose start took its product out of the base (PiSSA, OLoRA), as ordinary ones for the base as it is.

The start follows from the base, so it is computed again and subtracted: scaling (lora_B lora_A - lora_B0 lora_A0). The
signs of singular vectors, which are LAPACK's to choose, cancel in the product.
"""

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..checkpoints.open_base import open_base
from ..model.config_json import read_json
from ..model.rope_layout import reorder_rope_rows
from .folder import find_files
from .peft_config import base_left_by
from .starts import Factors, joined, leading_factors, orthonormal_factors
from .stored import StoredAdapter, read_adapter

KEY = "init_lora_weights"


def without_start(adapter: str | Path, base: str | Path) -> StoredAdapter:
    """A hat of PiSSA or OLoRA as one of twice the rank on the base that it started from, to the rounding of that start

    base  a folder of weights in full precision: those that PEFT saw
    Raises ValueError, naming the key, for a start that does not follow from the base, and a base stored in 4 or 8 bits.
    """
    files = find_files(Path(adapter))
    start = read_json(files.config).get(KEY) if files.kind == "peft" else True
    if not (left := base_left_by(start)):
        raise ValueError(f"{files.config}: {KEY} is {start!r}: it needs no base to be exported")
    if start not in ("pissa", "olora"):
        reason = "which is drawn at random" if str(start).startswith("pissa_niter_") else f"and belongs to {left}"
        raise ValueError(f"{files.config}: {KEY} is {start!r}, {reason}: it cannot be computed again")
    opened = open_base(Path(base))
    if opened.is_quantized:
        raise ValueError(f"{base}: is stored in 4 or 8 bits: a start of {start!r} follows from full precision")
    stored = read_adapter(adapter, opened.config, force=True)
    stored.refuse_beyond_lora("a hat without its start")
    pairs = dict(stored.pairs)
    for parameter in opened.parameters():
        path = parameter.name.removesuffix(".weight")
        if path not in pairs:
            continue
        config, lora_A, lora_B, _ = pairs[path]
        weight = parameter.read()
        assert isinstance(weight, Tensor), path
        weight = reorder_rope_rows(weight.float(), path, opened.config, opened.config.rope_layout, "half")
        find = leading_factors if start == "pissa" else orthonormal_factors
        try:
            begun = find(weight, config.rank, config.scaling)
        except ValueError as reason:
            raise ValueError(f"{files.config}: {KEY} is {start!r}, {path}: {reason}") from None
        options, factors = joined(config, Factors(lora_A, lora_B), begun)
        pairs[path] = pairs[path]._replace(config=options, lora_A=factors.lora_A, lora_B=factors.lora_B)
    return replace(stored, pairs=pairs)
