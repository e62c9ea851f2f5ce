"""The kernels in CUDA C, compiled by NVRTC and run by the emulator: no GPU is needed."""

import pytest
from ptx import cuda_c

from lowrank.kernels.cuda import pairs


@pytest.fixture
def emulated(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Launches run as on a GPU of compute capability 9.0, or of the parameter's."""
    for name in ("kernel", "capacity", "unavailable_reason"):
        monkeypatch.setattr(pairs, name, getattr(pairs, name))  # to be put back
    cuda_c.install(getattr(request, "param", 90))
