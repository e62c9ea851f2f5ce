"""AdamW, gradient clipping and the learning-rate schedule, each as its equation."""

import math
from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

Schedule = Literal["constant", "cosine"]


class AdamW:
    """Adam with decoupled weight decay    (arXiv 1711.05101, algorithm 2)

    m = b1 m + (1 - b1) g                       mh = m / (1 - b1^t)
    v = b2 v + (1 - b2) g^2                     vh = v / (1 - b2^t)
    p = p - lr decay p - lr mh / (sqrt(vh) + eps)

    Moments are kept in the dtype of their parameter. A parameter without a gradient is an error: it would be left
    behind in silence.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.parameters = parameters
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.steps = 0
        self.m = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
        self.v = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update from the gradients, which are then forgotten. Matrices decay, vectors (norms) do not."""
        self.steps += 1
        b1, b2 = self.betas
        correction1, correction2 = 1 - b1**self.steps, 1 - b2**self.steps
        for name, parameter in self.parameters.items():
            gradient = parameter.grad
            assert gradient is not None, name
            m, v = self.m[name], self.v[name]
            m.lerp_(gradient, 1 - b1)
            v.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
            if parameter.dim() > 1:
                parameter.mul_(1 - lr * self.weight_decay)
            denominator = (v.sqrt() / math.sqrt(correction2)).add_(self.eps)
            parameter.addcdiv_(m, denominator, value=-lr / correction1)
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """Steps and moments; `load_state_dict` takes them back."""
        return {"steps": self.steps, "m": self.m, "v": self.v}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same parameters."""
        assert state["m"].keys() == self.m.keys()
        self.steps = state["steps"]
        for moments, stored in ((self.m, state["m"]), (self.v, state["v"])):
            for name, tensor in stored.items():
                moments[name].copy_(tensor)


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
    """g = g min(1, max_norm / |g|), |g| the 2-norm over all parameters together; returns |g| as it was, float32 []"""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm: Tensor = torch.stack([gradient.float().norm() for gradient in gradients]).norm()
    scale = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(scale)
    return norm


def learning_rate(step: int, steps: int, peak: float, warmup: int, schedule: Schedule, floor: float = 0.0) -> float:
    """The rate of step 0 .. steps - 1: linear from peak / warmup over `warmup` steps, then constant or half a cosine

    "cosine" falls from `peak` to `floor * peak` at the last step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    done = (step - warmup) / max(1, steps - 1 - warmup)
    return peak * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done)))
