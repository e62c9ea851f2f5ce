"""Correctness before speed: every provider's output against float64, at every case that is timed.

    forward, dX     largest error at most twice that of dequantize-to-dtype + matmul, plus one ulp at max |y|
    quantize        ours: byte-equal to `reference`;  a peer: no further from W than twice the reference
    dequantize      ours: bit-equal to `reference`;   a peer: as above; into memory that is there: the same

A product is held to the weight that its provider itself stores, on normal x and on one-hot x: a wrong code that hides
in a long sum stands alone in y there. (Only M columns are looked at so; the tests of the kernels look at all.) A peer
may round level, scale and their product to the dtype, one by one, where dequantize-to-dtype rounds once: its bound is
three times as wide.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.repack import to_file_layout

from .peers import Ours, Provider, samples_apart
from .plan import INTO, Case

PEER_ROUNDINGS = 3


@dataclass(frozen=True)
class Verdict:
    """The error of a provider against float64, and its bound."""

    case: Case
    provider: str
    error: float
    allowed: float

    @property
    def has_passed(self) -> bool:
        """NaN does not."""
        return self.error <= self.allowed

    def __str__(self) -> str:
        where = f"{self.case.op} {self.case.shape}, {self.provider}"
        return f"{where}: error {self.error:.3g}, at most {self.allowed:.3g} allowed"


class Inputs:
    """The operands of the cases of one shape: normal, W as narrow as a trained linear's, seeded by the shape."""

    def __init__(self, n: int, k: int, dtype: torch.dtype, device: torch.device) -> None:
        self._generator = torch.Generator(device).manual_seed(n * 65537 + k)
        self._device, self._dtype = device, dtype
        self.w = self._normal(n, k) * 0.02

    def _normal(self, *size: int) -> Tensor:
        drawn = torch.randn(size, generator=self._generator, device=self._device)
        return drawn.to(self._dtype)

    def x(self, case: Case) -> Tensor:
        """The factor of the weight: x [M, K] forward, dY [M, N] backward."""
        assert case.m is not None
        return self._normal(case.m, case.n if case.op == "dX" else case.k)

    @cached_property
    def reference(self) -> Any:
        """The plain-torch truth of W in NF4 with nested block maxima."""
        return reference.quantize_4bit(self.w, "nf4", 64, double_quant=True)


def check(provider: Provider, stored: Any, case: Case, inputs: Inputs) -> Verdict:
    """One provider at one case, by the rule above."""
    if case.m is None:
        error, allowed = _weight_error(provider, stored, case.op, inputs)
    else:
        error, allowed = _product_error(provider, stored, case.op, inputs.x(case), inputs)
    return Verdict(case, provider.name, error, allowed)


def product(provider: Provider, stored: Any, op: str, x: Tensor, k: int) -> Tensor:
    """x W^T, or the gradient dY W at whatever x, on which it does not depend."""
    if op == "forward":
        return provider.linear(stored, x)
    at = torch.zeros(len(x), k, dtype=x.dtype, device=x.device, requires_grad=True)
    (dx,) = torch.autograd.grad(provider.linear(stored, at), at, x)
    return dx


def _weight_error(provider: Provider, stored: Any, op: str, inputs: Inputs) -> tuple[float, float]:
    """Ours: how many bytes differ, and none may. A peer: the distance from W."""
    truth = inputs.reference
    if isinstance(provider, Ours):
        if op == "quantize":
            pairs = [(to_file_layout(stored).tensors()[name], tensor) for name, tensor in truth.tensors().items()]
        else:
            dtype = inputs.w.dtype
            pairs = [(_dequantized(provider, stored, op, inputs.w), reference.dequantize_4bit(truth, dtype))]
        return float(sum(_different_bytes(ours, tensor) for ours, tensor in pairs)), 0.0
    return (
        samples_apart(_dequantized(provider, stored, op, inputs.w), inputs.w),
        2 * samples_apart(reference.dequantize_4bit(truth), inputs.w),
    )


def _dequantized(provider: Provider, stored: Any, op: str, w: Tensor) -> Tensor:
    """W as the provider dequantizes it, in W's dtype."""
    if op != INTO:
        return provider.dequantize(stored, w.dtype)
    out = torch.full_like(w, torch.nan)
    provider.dequantize_into(stored, out)
    return out


def _different_bytes(ours: Tensor, truth: Tensor) -> int:
    ours, truth = (tensor.reshape(-1).view(torch.uint8) for tensor in (ours, truth))
    return int((ours != truth).sum()) if ours.shape == truth.shape else max(ours.numel(), truth.numel())


def _product_error(provider: Provider, stored: Any, op: str, x: Tensor, inputs: Inputs) -> tuple[float, float]:
    """The error and its bound at whichever x comes closer to the bound, or lies farther beyond it."""
    ours = isinstance(provider, Ours)
    w = reference.dequantize_4bit(inputs.reference) if ours else provider.dequantize(stored, torch.float32)
    found = []
    for operand in (x, _one_hot(x)):
        with torch.set_grad_enabled(op == "dX"):
            y = product(provider, stored, op, operand, w.shape[1])
        exact = operand.double() @ _oriented(w.double(), op)
        rounded = operand @ _oriented(w.to(x.dtype), op)
        allowed = 2 * _largest(rounded.double() - exact) + torch.finfo(x.dtype).eps * _power_below(_largest(exact))
        found.append((_largest(y.double() - exact), allowed * (1 if ours else PEER_ROUNDINGS)))
    return max(found, key=lambda pair: math.inf if math.isnan(pair[0]) else pair[0] / pair[1])


def _one_hot(x: Tensor) -> Tensor:
    """One 1 a row, evenly spread over the columns from the first one on."""
    rows = torch.arange(len(x), device=x.device)
    hot = torch.zeros_like(x)
    hot[rows, rows * x.shape[1] // len(x)] = 1
    return hot


def _largest(y: Tensor) -> float:
    return y.abs().max().item()


def _power_below(value: float) -> float:
    """The power of two at or below a value: times eps, one unit in the last place of that value."""
    return 2.0 ** math.floor(math.log2(value))


def _oriented(w: Tensor, op: str) -> Tensor:
    return w.T if op == "forward" else w
