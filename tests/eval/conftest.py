"""Hats that do something, for the x-rays."""

from pathlib import Path

import pytest
import torch

from lowrank.adapter_files import save_adapter
from lowrank.adapters import adapter_parameters, add_adapter
from lowrank.loader import load


@pytest.fixture(scope="session")
def random_hat(tmp_path_factory):
    """Writes a hat with random matrices for a base; returns its folder."""

    def make(base: Path, seed: int = 0, std: float = 0.1, **options) -> Path:
        folder = tmp_path_factory.mktemp("hats") / "hat"
        model = load(base)
        add_adapter(model, "hat", **{"rank": 4, "alpha": 8, **options})
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in adapter_parameters(model, "hat").values():
                parameter.normal_(std=std, generator=generator)
        save_adapter(model, "hat", folder)
        return folder

    return make


@pytest.fixture(scope="session")
def embedded_hat(embedded, random_hat):
    """One on wq and w2 of the embedded base."""
    return random_hat(embedded, targets=["wq", "w2"])
