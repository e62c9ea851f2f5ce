"""AdamW, gradient clipping and the learning-rate schedule, each as its equation."""

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal, localcontext
from importlib.util import find_spec
from typing import Any, Literal

import torch
from torch import Tensor, nn

from .adam_state import BLOCK, MomentShard, StateKind, levels_and_middles, new_moment

LRSchedule = Literal["constant", "linear", "cosine"]


class AdamW:
    """Adam with decoupled weight decay    (arXiv 1711.05101, algorithm 2)

    m = b1 m + (1 - b1) g                       mh = m / (1 - b1^t)
    v = b2 v + (1 - b2) g^2                     vh = v / (1 - b2^t)
    p = p - lr decay p - lr mh / (sqrt(vh) + eps)

    Moments are kept as `states` says, never in 16 bits: of a parameter in 16 bits the step is computed in float32, and
    rounded once. `rates` multiply lr by parameter (LoRA+, arXiv 2402.12354: B learns faster than
    A). A parameter without a gradient is an error: it would be left behind in silence. parts: what this process holds
    of parameters that are cut over several.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        states: StateKind = "fp32",
        rates: Mapping[str, float] | None = None,
        parts: Mapping[str, MomentShard] | None = None,
    ) -> None:
        self.parameters = parameters
        self.betas = betas
        self.eps = eps
        self.weight_decay = weight_decay
        self.rates = rates or {}
        self.steps = 0
        local_parameters, parts = {name: local(parameter) for name, parameter in parameters.items()}, parts or {}
        self.m = {name: new_moment(part, states, True, parts.get(name)) for name, part in local_parameters.items()}
        self.v = {name: new_moment(part, states, False, parts.get(name)) for name, part in local_parameters.items()}

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """One update from the gradients, which are then forgotten. Matrices decay, vectors (norms) do not."""
        self.steps += 1
        b1, b2 = self.betas
        correction1, correction2 = 1 - b1**self.steps, 1 - b2**self.steps
        if self._step_at_once(lr, (correction1, correction2)):
            return
        for name, full in self.parameters.items():
            assert full.grad is not None, name
            parameter, gradient = local(full), local(full.grad)
            rate = lr * self.rates.get(name, 1.0)
            m, v = self.m[name].read(), self.v[name].read()
            wide = parameter.to(torch.promote_types(parameter.dtype, m.dtype))  # itself, where it is not in 16 bits
            gradient = gradient.to(m.dtype)
            m.lerp_(gradient, 1 - b1)
            v.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
            if parameter.dim() > 1:
                wide.mul_(1 - rate * self.weight_decay)
            denominator = (v.sqrt() / math.sqrt(correction2)).add_(self.eps)
            wide.addcdiv_(m.to(wide.dtype), denominator.to(wide.dtype), value=-rate / correction1)
            if wide is not parameter:
                parameter.copy_(wide)
            self.m[name].write(m)
            self.v[name].write(v)
            full.grad = None

    def _step_at_once(self, lr: float, corrections: tuple[float, float]) -> bool:
        """The update of all parameters on a GPU in a launch for each kind of moment; False if they are not for it."""
        if not is_on_gpu([local(parameter) for parameter in self.parameters.values()]):
            return False
        from lowrank.kernels.triton.adamw import Levels8, Update, can_step, step

        updates: dict[bool, list[Update]] = {False: [], True: []}  # by whether moments are in 8 bits
        for name, parameter in self.parameters.items():
            m, v = self.m[name].in_place(), self.v[name].in_place()
            if parameter.grad is None or m is None or v is None:
                return False
            rate = lr * self.rates.get(name, 1.0)
            kept = 1 - rate * self.weight_decay if parameter.dim() > 1 else 1.0
            updates[len(m) > 1].append(Update(local(parameter), local(parameter.grad), m, v, rate, kept))
        if not can_step([tensor for kind in updates.values() for update in kind for tensor in update.tensors]):
            return False
        for is_8bit, chosen in updates.items():
            if not chosen:
                continue
            device, levels = chosen[0].parameter.device, None
            if is_8bit:
                levels = Levels8(*levels_and_middles(True, device), *levels_and_middles(False, device))
            step(chosen, levels, self.betas, self.eps, corrections, BLOCK)
        for parameter in self.parameters.values():
            parameter.grad = None
        return True

    def saved(self) -> dict[str, tuple[nn.Parameter, Tensor]]:
        """Every tensor of a checkpoint, with its parameter: "m.layers.0.attention.wq.lora_A.value" ..."""
        return {
            f"{key}.{name}.{part}": (self.parameters[name], tensor)
            for key, moments in {"m": self.m, "v": self.v}.items()
            for name, moment in moments.items()
            for part, tensor in moment.saved().items()
        }

    def take(self, saved: Mapping[str, Tensor]) -> None:
        """Goes on from what `saved` gave, after that has been written over."""
        for key, moments in {"m": self.m, "v": self.v}.items():
            for name, moment in moments.items():
                moment.take({part: saved[f"{key}.{name}.{part}"] for part in moment.tensors()})

    def state_dict(self) -> dict[str, Any]:
        """Steps and moments; `load_state_dict` takes them back."""
        return {"steps": self.steps, **{name: tensor for name, (_, tensor) in self.saved().items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict` of the same parameters."""
        self.steps = state["steps"]
        tensors = {name: tensor for name, (_, tensor) in self.saved().items()}
        for name, tensor in tensors.items():
            tensor.copy_(state[name])
        self.take(tensors)


def is_on_gpu(tensors: Sequence[Tensor]) -> bool:
    """True if Triton's kernels for all parameters at once take them: float32, whole, on one GPU."""
    if not tensors or not tensors[0].is_cuda or find_spec("triton") is None:
        return False
    from lowrank.kernels.triton import adamw

    return adamw.can_step(tensors)


def local(tensor: Tensor) -> Tensor:
    """The local shard of a tensor that is sharded over several processes; any other tensor unchanged."""
    part: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return part


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], max_norm: float, norm: Tensor | None = None) -> Tensor:
    """g = g min(1, max_norm / |g|), |g| the 2-norm over all parameters together; returns |g| as it was, float32 []

    max_norm: infinity for no clipping, which leaves every bit.
    norm: |g| where it is known already, as it is of gradients that are cut over several processes.
    Gradients whose norm is not finite are left as they are: they tell where that came from.
    """
    gradients = [local(parameter.grad) for parameter in parameters if parameter.grad is not None]
    at_once = is_on_gpu(gradients)
    if at_once:
        from lowrank.kernels.triton import adamw
    if norm is None:
        if at_once:
            norm = adamw.norm(gradients)
        else:
            norm = torch.stack([gradient.float().norm() for gradient in gradients]).norm()
    scale = torch.where(norm.isfinite(), (max_norm / (norm + 1e-6)).clamp(max=1.0), 1.0)
    if at_once:
        adamw.scale(gradients, scale)
        return norm
    for gradient in gradients:
        gradient.mul_(scale)
    return norm


def learning_rate(step: int, steps: int, peak: float, warmup: int, schedule: LRSchedule, floor: float = 0.0) -> float:
    """The rate of step 0 .. steps - 1: linear from peak / warmup over `warmup` steps, then by its share d of the rest

        d = (step - warmup) / (steps - 1 - warmup)
        constant    peak
        linear      peak (floor + (1 - floor) (1 - d))
        cosine      peak (floor + (1 - floor) (1 + cos(pi d)) / 2)

    The last two come to `floor * peak` at the last step.
    """
    if step < warmup:
        return peak * (step + 1) / warmup
    if schedule == "constant":
        return peak
    done = (step - warmup) / max(1, steps - 1 - warmup)
    left = 1 - done if schedule == "linear" else 0.5 * (1 + cosine(math.pi * done))
    return peak * (floor + (1 - floor) * left)


def cosine(x: float) -> float:
    """cos x = 1 - x^2 / 2! + x^4 / 4! - ..., 0 <= x <= 4, in 40 decimal digits and rounded once

    A library's has another last bit on another processor, and the rate with it.
    """
    with localcontext(prec=40):
        total, term, square = Decimal(1), Decimal(1), Decimal(x) ** 2
        for i in range(2, 60, 2):
            term *= -square / (i * (i - 1))
            total += term
        return float(total)


def warmup_steps(steps: int, warmup: int, ratio: float) -> int:
    """warmup, or ceil(ratio steps) if that is 0"""
    return warmup or math.ceil(ratio * steps)
