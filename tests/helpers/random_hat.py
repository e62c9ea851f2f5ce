"""A hat of small random numbers on a base, as its files and at work."""

from pathlib import Path
from typing import Any

import torch

from lowrank.adapters import adapter_parameters, add_adapter, use_adapter
from lowrank.adapters.files import save_adapter
from lowrank.checkpoints.load import load
from lowrank.model.llama import Llama


def make_hat(base: Path, folder: Path, *, notes: dict[str, Any] | None = None, **options: Any) -> Llama:
    """The model in float32 that wears the hat, which is saved in `folder`; options of `add_adapter`."""
    model = load(base, "fp32")
    add_adapter(model, "hat", **{"rank": 4, "alpha": 8, **options})
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in adapter_parameters(model, "hat").values():
            parameter.normal_(std=0.05, generator=generator)
    save_adapter(model, "hat", folder, notes=notes)
    use_adapter(model, "hat")
    return model
