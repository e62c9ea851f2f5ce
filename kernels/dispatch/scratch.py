"""Scratch memory for a dequantized weight, used by one product at a time.

One buffer a (device, dtype, stream), grown to the largest weight and kept. Why two products never share it:

- on one stream kernels run in the order in which they were launched, so the next weight is written after the product
  that reads this one. The lock keeps another thread (autograd's, say) from launching in between;
- another stream has a buffer of its own;
- a CUDA graph keeps the addresses that it was captured with, so while one is captured the memory is its own instead.

Nothing that lives longer may refer to it: what is kept for a backward pass is the quantized weight.
"""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

ALIGNMENT = 64  # elements: every row starts at a multiple of 128 bytes


class _Buffer:
    def __init__(self) -> None:
        self.memory: Tensor | None = None
        self.lock = threading.Lock()


_buffers: dict[tuple[torch.device, torch.dtype, int], _Buffer] = {}


@contextmanager
def borrow(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Iterator[Tensor]:
    """Uninitialised [rows, columns] view, rows padded to 128 bytes. Use it inside the block, on this stream only."""
    rows, columns = shape
    stride = math.ceil(columns / ALIGNMENT) * ALIGNMENT
    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    buffer = _buffers.setdefault((device, dtype, stream), _Buffer())
    with buffer.lock:
        if device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            memory = torch.empty(rows * stride, dtype=dtype, device=device)
        else:
            memory = buffer.memory = _at_least(rows * stride, dtype, device, buffer.memory)
        yield memory[: rows * stride].view(rows, stride)[:, :columns]


def _at_least(count: int, dtype: torch.dtype, device: torch.device, memory: Tensor | None) -> Tensor:
    if memory is not None and memory.numel() >= count:
        return memory
    del memory  # freed before its successor is asked for
    with torch.inference_mode(False):  # what is made there could not be written to outside
        return torch.empty(count, dtype=dtype, device=device)
