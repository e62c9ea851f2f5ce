"""What the tests of the benches of models share."""

import os
from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def cores() -> Iterator[None]:
    """The bench pins its process: that is taken back."""
    before, threads = os.sched_getaffinity(0), torch.get_num_threads()
    yield
    os.sched_setaffinity(0, before)
    torch.set_num_threads(threads)
