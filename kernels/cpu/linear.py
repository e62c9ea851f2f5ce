"""Quantize, dequantize and products by the C library, with the signatures that the table of `dispatch` calls.

    quantize_4bit, dequantize   to the byte what `reference` gives
    linear            few rows: W is looked up in registers
    tiled_linear      bfloat16, from a few rows on: W becomes tiles of the matrix unit
    dot_linear        bfloat16, the same by dot products of bfloat16 pairs, from panels in the cache
    panel_linear      many: a panel of W at a time, dequantized into the cache, and the vendor's GEMM
    *_backward        dX = dY W, the gradient of each

M rows of x, N out_features, K in_features; x [*, K], W [N, K], y [*, N].
"""

import ctypes
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor

from ..reference import weights as reference
from ..weights.codebooks import CODEBOOKS, ZERO_CODES, dynamic8
from ..weights.linear_with_adapter import LinearWithAdapter
from ..weights.quantized_weight import NESTED_BLOCKSIZE, Blockwise4bit, FourBit, NestedAbsmax, RowwiseInt8
from .library import DTYPES, Dense, LinearPart, Submatrix, call, describe

PANEL_BYTES = 1 << 20  # of dequantized weights: they are read from the second-level cache, where they were written


def quantize_4bit(
    w: Tensor, format: FourBit = "nf4", blocksize: int = 64, double_quant: bool = False, name: str = "w"
) -> Blockwise4bit:
    """`reference.quantize_4bit`, byte for byte"""
    reference.check_blocksize(blocksize)
    flat = w.contiguous()
    boundaries, order = reference.boundaries(CODEBOOKS[format]())
    codes = torch.empty((flat.numel() + 1) // 2, dtype=torch.uint8)
    absmax = torch.empty(-(-flat.numel() // blocksize), dtype=torch.float32)
    pointers = (boundaries.data_ptr(), order.data_ptr(), ZERO_CODES[format], codes.data_ptr(), absmax.data_ptr())
    if call("quantize", flat.data_ptr(), DTYPES[w.dtype], flat.numel(), blocksize, *pointers):
        reference.finite(w, name)  # tells which weight is not finite
    return Blockwise4bit(codes, quantize_absmax(absmax) if double_quant else absmax, format, blocksize, tuple(w.shape))


def quantize_absmax(absmax: Tensor) -> NestedAbsmax:
    """`reference.quantize_absmax`, byte for byte"""
    offset = reference.mean_absmax(absmax)
    boundaries, _ = reference.boundaries(dynamic8())
    codes = torch.empty(absmax.numel(), dtype=torch.uint8)
    nested_absmax = torch.empty(-(-absmax.numel() // NESTED_BLOCKSIZE), dtype=torch.float32)
    call(
        "quantize_absmax",
        absmax.data_ptr(),
        absmax.numel(),
        offset.item(),
        NESTED_BLOCKSIZE,
        boundaries.data_ptr(),
        codes.data_ptr(),
        nested_absmax.data_ptr(),
    )
    return NestedAbsmax(codes, nested_absmax, offset, NESTED_BLOCKSIZE)


def dequantize(
    weight: Blockwise4bit | RowwiseInt8, dtype: torch.dtype = torch.float32, out: Tensor | None = None
) -> Tensor:
    """W [N, K] in `dtype`, written into `out` where that is given."""
    if out is None:
        out = torch.empty(weight.shape, dtype=dtype)
    rows = out.view(-1, out.shape[-1]) if out.dim() != 2 else out
    _dequantize(weight, Submatrix(0, rows.shape[0], 0, rows.shape[1]), rows)
    return out


def linear(x: Tensor, weight: Blockwise4bit | RowwiseInt8) -> Tensor:
    """y = x W^T;  x [*, K] -> [*, N]"""
    return linears(x, [LinearWithAdapter(weight)])[0]


def linears(x: Tensor, parts: Sequence[LinearWithAdapter]) -> tuple[Tensor, ...]:
    """y_i = x W_i^T + s_i (x A_i^T) B_i^T, summed in float32 and rounded once;  x [*, K] -> [*, N_i]

    Every W_i is as files have it, or a matrix of a dtype that C takes.
    """
    shape, rows, dtype = x.shape, x.contiguous(), x.dtype
    described = (LinearPart * len(parts))()
    alive = describe_parts(parts, described)
    ys = []
    for part, to in zip(parts, described, strict=True):
        assert part.weight.shape[1:] == shape[-1:] and x.is_cpu and part.drop is None and part.rank_mask is None
        y = torch.empty((*shape[:-1], part.weight.shape[0]), dtype=dtype)
        to.y = y.data_ptr()
        ys.append(y)
    call("linears", described, len(parts), rows.data_ptr(), rows.numel() // shape[-1], DTYPES[dtype])
    del alive
    return tuple(ys)


def describe_parts(parts: Sequence[LinearWithAdapter], described: Iterable[LinearPart]) -> list[object]:
    """Fills in all but y. Returns what must live as long as `described` is in use.

    One call for all linears of an x: a call for each would take longer than what it does.
    """
    alive: list[object] = []
    for part, to in zip(parts, described, strict=True):
        weight, lora_A, lora_B = part.weight, part.lora_A, part.lora_B
        if isinstance(weight, Tensor):
            assert weight.is_cpu
            matrix = weight.contiguous()
            dense = Dense(matrix.data_ptr(), DTYPES[matrix.dtype], *matrix.shape)
            alive += [dense, matrix]
            to.w_dense = ctypes.addressof(dense)
        else:
            assert isinstance(weight, Blockwise4bit | RowwiseInt8)
            kept = weight.__dict__.get("_kept")  # as in `describe`, which would be a call for each linear
            if kept is not None and kept.places == list(map(Tensor.data_ptr, kept.tensors)):
                structure = kept.described
            else:
                structure = describe(weight)
            alive.append(structure)
            setattr(to, "w_int8" if isinstance(weight, RowwiseInt8) else "w", ctypes.addressof(structure))
        if lora_A is not None and lora_B is not None:
            lora_A, lora_B = lora_A.float().contiguous(), lora_B.float().contiguous()
            rank = lora_A.shape[0]
            assert lora_A.shape == (rank, weight.shape[1]) and lora_B.shape == (weight.shape[0], rank)
            to.lora_a, to.lora_b, to.rank, to.scaling = lora_A.data_ptr(), lora_B.data_ptr(), rank, part.scaling
            alive += [lora_A, lora_B]
    return alive


def linear_backward(dy: Tensor, weight: Blockwise4bit | RowwiseInt8) -> Tensor:
    """dX = dY W;  dy [*, N] -> [*, K]"""
    name = "linear_int8_backward" if isinstance(weight, RowwiseInt8) else "linear_backward"
    return _call_with(name, dy, weight, 0, DTYPES[dy.dtype])


def tiled_linear(x: Tensor, weight: Blockwise4bit) -> Tensor:
    """y = x W^T;  x bfloat16 [*, K] -> [*, N]"""
    return _call_with("linear_amx", x, weight, 1)


def tiled_linear_backward(dy: Tensor, weight: Blockwise4bit) -> Tensor:
    """dX = dY W;  dy bfloat16 [*, N] -> [*, K]"""
    return _call_with("linear_amx_backward", dy, weight, 0)


def dot_linear(x: Tensor, weight: Blockwise4bit) -> Tensor:
    """y = x W^T;  x bfloat16 [*, K] -> [*, N]"""
    return _call_with("linear_bf16", x, weight, 1)


def dot_linear_backward(dy: Tensor, weight: Blockwise4bit) -> Tensor:
    """dX = dY W;  dy bfloat16 [*, N] -> [*, K]"""
    return _call_with("linear_bf16_backward", dy, weight, 0)


def panel_linear(x: Tensor, weight: Blockwise4bit | RowwiseInt8) -> Tensor:
    """y = x W^T;  x [*, K] -> [*, N]"""
    n, k = weight.shape
    rows = x.reshape(-1, k)
    y = rows.new_empty(len(rows), n)
    memory = rows.new_empty(_step(k, x.dtype) * k)
    for first, count in _panels(n, k, x.dtype):
        panel = memory[: count * k].view(count, k)
        _dequantize(weight, Submatrix(first, count, 0, k), panel)
        y[:, first : first + count] = rows @ panel.T
    return y.view(*x.shape[:-1], n)


def panel_linear_backward(dy: Tensor, weight: Blockwise4bit | RowwiseInt8) -> Tensor:
    """dX = dY W;  dy [*, N] -> [*, K]. A panel has columns of W, so that each output is summed at once."""
    n, k = weight.shape
    rows = dy.reshape(-1, n)
    dx = rows.new_empty(len(rows), k)
    memory = rows.new_empty(_step(n, dy.dtype) * n)
    for first, count in _panels(k, n, dy.dtype):
        panel = memory[: n * count].view(n, count)
        _dequantize(weight, Submatrix(0, n, first, count), panel)
        dx[:, first : first + count] = rows @ panel
    return dx.view(*dy.shape[:-1], k)


def dequantize_rows(weight: Blockwise4bit | RowwiseInt8, first: int, out: Tensor) -> None:
    """As many rows of W as `out` has, from row `first` on, in the dtype of `out`."""
    _dequantize(weight, Submatrix(first, out.shape[0], 0, out.shape[1]), out)


def _panels(length: int, across: int, dtype: torch.dtype) -> Iterator[tuple[int, int]]:
    """(first, count) of each panel."""
    step = _step(across, dtype)
    for first in range(0, length, step):
        yield first, min(step, length - first)


def _step(across: int, dtype: torch.dtype) -> int:
    """Rows or columns of a panel: a multiple of 64, which begins a block where blocks are no longer than that."""
    return max(64, PANEL_BYTES // (across * dtype.itemsize) // 64 * 64)


def _dequantize(weight: Blockwise4bit | RowwiseInt8, part: Submatrix, out: Tensor) -> None:
    name = "dequantize_int8" if isinstance(weight, RowwiseInt8) else "dequantize"
    stride = out.stride(0) if len(out) > 1 else out.shape[1]
    call(name, ctypes.byref(describe(weight)), ctypes.byref(part), DTYPES[out.dtype], out.data_ptr(), stride)


def _call_with(name: str, x: Tensor, weight: Blockwise4bit | RowwiseInt8, inner: int, *dtype: int) -> Tensor:
    """x times W, summed over dimension `inner` of W [N, K]."""
    assert x.shape[-1] == weight.shape[inner] and len(weight.shape) == 2 and x.device.type == "cpu"
    rows, columns = x.contiguous(), weight.shape[1 - inner]
    y = x.new_empty(*x.shape[:-1], columns)
    call(name, ctypes.byref(describe(weight)), rows.data_ptr(), rows.numel() // x.shape[-1], *dtype, y.data_ptr())
    return y
