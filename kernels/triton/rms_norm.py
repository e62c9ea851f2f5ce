"""RMSNorm in Triton, of a tensor or of a sum of two: one pass forward, one backward.

    h  = x + residual                                   rounded to the dtype of x, as it goes on beside the norm
    y  = h * rstd * weight        rstd = 1 / sqrt(mean(h^2) + eps)                            (arXiv 1910.07467)
    dh = rstd * (weight dy - h rstd * mean(weight dy h rstd)) + what reaches h by its other way
    dweight = sum over rows of dy h rstd

M rows, D channels. All of it is float32 inside and rounded once where it is stored. A row is read once and stays in
registers; the sum over rows for dweight is taken in a fixed order, so that it is the same bits every time.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Programs that share the sum of dweight: two for each multiprocessor of an H200.
PROGRAMS = 264


@triton.jit
def rms_norm_kernel(
    y_ptr,
    h_ptr,
    rstd_ptr,
    x_ptr,
    residual_ptr,
    weight_ptr,
    eps,
    D: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program m norms row m. Without a residual h is x and is not written."""
    channel = tl.arange(0, BLOCK_D)
    inside = channel < D
    row = tl.program_id(0).to(tl.int64)
    at = row * D + channel
    h = tl.load(x_ptr + at, mask=inside, other=0.0)
    if HAS_RESIDUAL:
        added = h.to(tl.float32) + tl.load(residual_ptr + at, mask=inside, other=0.0).to(tl.float32)
        h = added.to(h_ptr.dtype.element_ty)
        tl.store(h_ptr + at, h, mask=inside)
    wide = h.to(tl.float32)
    rstd = tl.div_rn(1.0, tl.sqrt_rn(tl.sum(wide * wide) / D + eps))  # exact: it is once a row
    weight = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, (wide * rstd * weight).to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(rstd_ptr + row, rstd)


@triton.jit
def rms_norm_backward_kernel(
    dx_ptr,
    dweight_ptr,
    dy_ptr,
    dh_ptr,
    h_ptr,
    rstd_ptr,
    weight_ptr,
    rows,
    rows_per_program,
    D: tl.constexpr,
    HAS_DH: tl.constexpr,
    WITH_DWEIGHT: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Program p takes rows p * rows_per_program and on; its part of dweight is row p of dweight_ptr, float32."""
    channel = tl.arange(0, BLOCK_D)
    inside = channel < D
    program = tl.program_id(0).to(tl.int64)
    weight = tl.load(weight_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    dweight = tl.zeros([BLOCK_D], dtype=tl.float32)
    row = program * rows_per_program
    end = tl.minimum(row + rows_per_program, rows)
    while row < end:
        at = row * D + channel
        dy = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32)
        rstd = tl.load(rstd_ptr + row)
        normed = tl.load(h_ptr + at, mask=inside, other=0.0).to(tl.float32) * rstd
        dnormed = weight * dy
        dx = rstd * (dnormed - normed * (tl.sum(dnormed * normed) / D))
        if HAS_DH:
            dx += tl.load(dh_ptr + at, mask=inside, other=0.0).to(tl.float32)
        tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), mask=inside)
        dweight += dy * normed
        row += 1
    if WITH_DWEIGHT:
        tl.store(dweight_ptr + program * D + channel, dweight, mask=inside)


def rms_norm(x: Tensor, residual: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """(y, h, rstd) of the equations above; without a residual h is x itself

    x, residual  [*, D] of one dtype
    weight       [D]
    Returns y, h in the dtype and shape of x, rstd float32 [*].
    """
    channels = x.shape[-1]
    y, rstd = torch.empty_like(x), torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device)
    h = x if residual is None else torch.empty_like(x)
    block = triton.next_power_of_2(channels)
    if rstd.numel():
        with torch.cuda.device_of(h):  # Triton launches on the current device
            rms_norm_kernel[(rstd.numel(),)](
                y,
                h,
                rstd,
                x,
                x if residual is None else residual,
                weight,
                eps,
                D=channels,
                HAS_RESIDUAL=residual is not None,
                BLOCK_D=block,
                num_warps=_warps(block),
                enable_fp_fusion=True,
            )
    return y, h, rstd


def rms_norm_backward(
    dy: Tensor, dh: Tensor | None, h: Tensor, rstd: Tensor, weight: Tensor, with_dweight: bool
) -> tuple[Tensor, Tensor]:
    """(dx, dweight), where dx is also the gradient of the residual

    dy, h  [*, D];  dh: the gradient that reaches h beside the norm, [*, D] or None;  rstd float32 [*];  weight [D]
    Returns dx in the dtype of h, dweight [D] in that of weight, or empty [0] without `with_dweight`.
    """
    rows, channels = rstd.numel(), h.shape[-1]
    # A program a row, unless rows are to be summed: then few programs, so that few parts are left to be added.
    rows_per_program = triton.cdiv(rows, PROGRAMS) if with_dweight else 1
    programs = triton.cdiv(rows, rows_per_program) if rows else 0
    dx = torch.empty_like(h)
    parts = torch.empty(programs if with_dweight else 0, channels, dtype=torch.float32, device=h.device)
    block = triton.next_power_of_2(channels)
    if programs:
        with torch.cuda.device_of(h):  # Triton launches on the current device
            rms_norm_backward_kernel[(programs,)](
                dx,
                parts,
                dy,
                dy if dh is None else dh,
                h,
                rstd,
                weight,
                rows,
                rows_per_program,
                D=channels,
                HAS_DH=dh is not None,
                WITH_DWEIGHT=with_dweight,
                BLOCK_D=block,
                num_warps=_warps(block),
                enable_fp_fusion=True,
            )
    return dx, parts.sum(0).to(weight.dtype) if with_dweight else weight.new_empty(0)


def _warps(block: int) -> int:
    """8 channels a thread, which are 16 bytes of bf16; with 16 the backward pass spills registers at D = 8192."""
    return max(1, min(32, block // 256))
