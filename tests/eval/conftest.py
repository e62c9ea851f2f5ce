"""Hats that do something, for the x-rays; and the public data sets in small, which the tests of the mixture invent."""

import importlib.util
from pathlib import Path

import pytest
import torch

from lowrank.adapters import adapter_parameters, add_adapter
from lowrank.adapters.files import save_adapter
from lowrank.checkpoints.load import load

_PATH = Path(__file__).parent.parent / "lowrank" / "data" / "mixture" / "conftest.py"
_SPEC = importlib.util.spec_from_file_location("mixture_fixtures", _PATH)
assert _SPEC is not None and _SPEC.loader is not None
_FIXTURES = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(_FIXTURES)

raw = _FIXTURES.raw


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
