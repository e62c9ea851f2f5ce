"""AdamW and the clipping of gradients with the same bits on every processor."""

import math
from collections.abc import Iterable

import torch
from torch import nn

from lowrank.kernels.cpu import exact

from ..optim import AdamW
from ..parallel.single import SingleProcess


class ExactAdamW(AdamW):
    """`train.optim.AdamW` for whole parameters in float32, all in float32

    m = b1 m + (1 - b1) g                      v = b2 v + (1 - b2) g^2
    p = (1 - lr decay) p - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
    """

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update from the gradients, which are then forgotten. Matrices decay, vectors (norms) do not."""
        self.steps += 1
        b1, b2 = self.betas
        correction1, correction2 = 1 - power(b1, self.steps), 1 - power(b2, self.steps)
        for name, parameter in self.parameters.items():
            assert parameter.grad is not None, name
            rate = lr * self.rates.get(name, 1.0)
            kept = 1 - rate * self.weight_decay if parameter.dim() > 1 else 1.0
            step, root = rate / correction1, math.sqrt(correction2)
            constants = exact.AdamW(b1, 1 - b1, b2, 1 - b2, kept, step, root, self.eps)
            m, v = self.m[name].read(), self.v[name].read()
            exact.adamw(constants, parameter.grad, parameter, m, v)
            self.m[name].write(m)
            self.v[name].write(v)
            parameter.grad = None


def power(base: float, exponent: int) -> float:
    """base^exponent, by squares: a library's `pow` has its own last bit.  exponent >= 0"""
    result = 1.0
    while exponent:
        if exponent % 2:
            result *= base
        base, exponent = base * base, exponent // 2
    return result


class ExactProcess(SingleProcess):
    """A single process that clips as below."""

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> float:
        """g = g min(1, max_norm / (|g| + 1e-6)), |g| the 2-norm over all parameters together, in double; returns it

        Gradients whose norm is not finite are left as they are.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        norm = math.sqrt(sum(exact.total(gradient, gradient) for gradient in gradients))
        if math.isfinite(norm) and norm + 1e-6 > max_norm:
            for gradient in gradients:
                gradient.mul_(max_norm / (norm + 1e-6))
        return norm
