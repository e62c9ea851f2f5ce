"""Calls of Python that a model makes on its way to logits: in a small model they are most of the time.

Counted are the "call" events of `sys.setprofile`: functions of Python, ours and torch's, not those of C.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch

import lowrank
from lowrank.kernels.cpu import library
from lowrank.model.llama import KVCache, Llama

pytestmark = pytest.mark.skipif(
    bool(library.unavailable_reason()), reason=library.unavailable_reason() or "the library is there"
)

MOST_OF_A_PROMPT = 700  # 12 tokens through 6 blocks
MOST_OF_A_TOKEN = 50


@pytest.fixture
def model(embedded: Path) -> Llama:
    """The embedded base of 6 blocks in 4 bits, with an adapter on every linear."""
    model = lowrank.load(embedded, "nf4-dq")
    lowrank.add_adapter(model, "hat")
    lowrank.use_adapter(model, "hat")
    return model


def python_calls(work: Callable[[], Any]) -> int:
    """Calls in `work`, once it has run and everything that is made once is made."""
    work()
    calls = -1  # `work` itself

    def count(frame: FrameType, event: str, argument: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls


@torch.inference_mode()
def test_a_prompt_and_a_token_take_few_calls(model: Llama) -> None:
    cache = KVCache(model.config, 1, 16, torch.float32, torch.device("cpu"))
    tokens = torch.arange(3, 15)[None]

    def prefill() -> None:
        cache.length = 0
        model(tokens, cache)

    def decode() -> None:
        cache.length = 12
        model(tokens[:, :1], cache)

    assert python_calls(prefill) <= MOST_OF_A_PROMPT
    assert python_calls(decode) <= MOST_OF_A_TOKEN
