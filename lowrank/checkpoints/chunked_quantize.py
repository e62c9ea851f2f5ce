"""Quantizing a weight that is still in its file: in chunks of rows, so that only a chunk is ever in float32.

N out_features, K in_features.
"""

import math
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import torch
from torch import Tensor

from ..kernels import ops
from ..kernels.reference import weights as reference
from ..kernels.weights.quantized_weight import BLOCKSIZE, Blockwise4bit, QuantizedWeight

# Weights of a chunk in plain torch: on a CPU its temporaries stay in the cache, which is faster than all of W at once;
# on a GPU each of its operations is a launch. A kernel makes no temporaries, and takes all of W.
CHUNK, CHUNK_ON_A_GPU = 1 << 18, 1 << 24
WORKERS = 16  # each needs some 25 bytes for every weight of its chunk


def quantize_chunks(w: Tensor, format: str, device: torch.device, where: str) -> QuantizedWeight:
    """`ops.quantize(w.to(device), format)`, bit for bit, with the temporaries of a chunk instead of all of W.

    w [N, K], on the CPU or in a memory map. Blocks lie within a chunk; double quantization takes the
    maxima of all of them.  Raises ValueError naming `where` for NaN or infinity.
    """
    if ops.can_quantize_in_place(w, format, device):
        return ops.quantize(w.to(device), format, name=where)
    single, _, nested = format.partition("-")
    period = BLOCKSIZE // math.gcd(BLOCKSIZE, w.shape[1])  # rows that are a whole number of blocks
    chunk = CHUNK if device.type == "cpu" else CHUNK_ON_A_GPU
    rows = period * max(1, chunk // (period * w.shape[1]))

    def quantize(number: int, chunk: Tensor) -> QuantizedWeight:
        name = where if number == 0 else f"{where} from row {number * rows} on"
        return ops.quantize(chunk.to(device), single, name=name)

    parts = _in_threads(quantize, w.split(rows), device)
    tensors = [part.tensors() for part in parts]
    weight = parts[0].with_tensors({key: torch.cat([part[key] for part in tensors]) for key in tensors[0]})
    if isinstance(weight, Blockwise4bit):
        assert isinstance(weight.absmax, Tensor)
        absmax = reference.quantize_absmax(weight.absmax) if nested else weight.absmax
        weight = replace(weight, shape=tuple(w.shape), absmax=absmax)
    return weight


def _in_threads(
    quantize: Callable[[int, Tensor], QuantizedWeight], chunks: Sequence[Tensor], device: torch.device
) -> list[QuantizedWeight]:
    """quantize(number, chunk) of each chunk in order. A thread takes a chunk: sharing one, threads would wait for each
    other after every operation, which on a busy machine costs more than ten times what they gain.
    """
    threads = torch.get_num_threads()
    if device.type != "cpu" or threads == 1 or len(chunks) == 1:
        return list(map(quantize, range(len(chunks)), chunks))
    try:
        with ThreadPoolExecutor(min(threads, WORKERS), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(quantize, range(len(chunks)), chunks))
    finally:
        torch.set_num_threads(threads)  # it is also what threads that begin later take, autograd's among them
