"""SwiGLU in Triton: the gate of Llama's feed-forward layer, and its gradient, each in one pass.

y   = silu(gate) up,   silu(g) = g sigmoid(g)                                             (arXiv 2002.05202)
dup = dy silu(gate),   dgate = dy up sigmoid(gate) (1 + gate (1 - sigmoid(gate)))
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 1024  # elements a program
LN2_HIGH, LN2_LOW = tl.constexpr(0.693359375), tl.constexpr(-2.12194440e-4)  # the first has 9 bits; their sum is ln 2


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) to an ulp or two in float32

    exp(-x) = 2^n exp(rest), n the integer next to -x / ln 2. The hardware's exponential, which is what tl.exp is, is
    that good for a small rest, and at x = -20 wrong by ten ulps.
    """
    n = tl.floor(-x * 1.4426950408889634 + 0.5)
    rest = (-x - n * LN2_HIGH) - n * LN2_LOW
    return tl.div_rn(1.0, 1 + tl.exp2(n) * tl.exp(rest))


@triton.jit
def swiglu_kernel(y_ptr, gate_ptr, up_ptr, count, TILE: tl.constexpr):
    """Program p writes y[p * TILE : (p + 1) * TILE]."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < count
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(y_ptr + at, (gate * sigmoid(gate) * up).to(y_ptr.dtype.element_ty), mask=inside)


@triton.jit
def swiglu_backward_kernel(dgate_ptr, dup_ptr, dy_ptr, gate_ptr, up_ptr, count, TILE: tl.constexpr):
    """Program p writes elements p * TILE and on of both gradients."""
    at = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    inside = at < count
    dy = tl.load(dy_ptr + at, mask=inside, other=0.0).to(tl.float32)
    gate = tl.load(gate_ptr + at, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(up_ptr + at, mask=inside, other=0.0).to(tl.float32)
    open = sigmoid(gate)
    dgate = dy * up * open * (1 + gate * (1 - open))
    tl.store(dgate_ptr + at, dgate.to(dgate_ptr.dtype.element_ty), mask=inside)
    tl.store(dup_ptr + at, (dy * gate * open).to(dup_ptr.dtype.element_ty), mask=inside)


def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) up, in the dtype and shape of both."""
    y = torch.empty_like(gate)
    if y.numel():
        with torch.cuda.device_of(up):  # Triton launches on the current device
            swiglu_kernel[(triton.cdiv(y.numel(), TILE),)](y, gate, up, y.numel(), TILE=TILE, enable_fp_fusion=True)
    return y


def swiglu_backward(dy: Tensor, gate: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
    """(dgate, dup), each in the dtype and shape of gate and up."""
    dgate, dup = torch.empty_like(gate), torch.empty_like(up)
    if dy.numel():
        with torch.cuda.device_of(up):  # Triton launches on the current device
            swiglu_backward_kernel[(triton.cdiv(dy.numel(), TILE),)](
                dgate, dup, dy, gate, up, dy.numel(), TILE=TILE, enable_fp_fusion=True
            )
    return dgate, dup
