"""Starts of a hat that follow from the weights of its base, instead of random numbers.

    loftq   scaling (A B)^T = the best product of rank r for W - Q(W)        (arXiv 2310.08659, its first step)
    pissa   scaling (A B)^T = the best product of rank r for Q(W)            (arXiv 2404.02948, equations 2 to 4)
    olora   (A B)^T = Q_r R_r, the first r columns and rows of Q R = Q(W)    (arXiv 2406.01775, algorithm 1)

Q(W) is the base as it is stored, dequantized; W the weights that it was quantized from, which loftq needs while it
starts and never again. The best product is that of the r largest singular values: U S V^T gives
A = V_r (S_r / scaling)^1/2 and B = (S_r / scaling)^1/2 U_r^T.

PiSSA and OLoRA take their product out of the base, so that the model begins as it was. Here the base stays: the hat is
worn with its own start at weight -1,

    y = x Q(W)^T + scaling ((x A) B - (x A0) B0)         W' = Q(W) - scaling (A0 B0)^T is their residual base

and is saved as the one ordinary hat of rank 2 r that these two are: A [A A0], B [B; -B0].

N out_features, K in_features, r rank.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..layers.dora import frozen_weight
from ..layers.lora import AdapterConfig
from ..model.llama import Llama
from . import layer_configs, lora_layers

DEFAULT, LOFTQ = "default", "loftq"
SUBTRACTED = ("pissa", "olora")  # their product at the start is taken off again
STARTS = (DEFAULT, LOFTQ, *SUBTRACTED)


class Factors(NamedTuple):
    """lora_A [r, K] and lora_B [N, r], float32"""

    lora_A: Tensor
    lora_B: Tensor


def leading_factors(matrix: Tensor, rank: int, scaling: float) -> Factors:
    """The factors of scaling * lora_B lora_A = U_r S_r V_r^T, the best product of this rank for a matrix [N, K]

    Each has its share (S_r / scaling)^1/2; the signs of a singular pair are those that LAPACK gives it.
    Raises ValueError for a rank above the smaller side, and a scaling that is not above 0.
    """
    _check(matrix, rank, scaling)
    U, S, Vh = torch.linalg.svd(matrix.float(), full_matrices=False)
    root = (S[:rank] / scaling).sqrt()
    return Factors((root[:, None] * Vh[:rank]).contiguous(), (U[:, :rank] * root).contiguous())


def orthonormal_factors(matrix: Tensor, rank: int, scaling: float = 1.0) -> Factors:
    """lora_A = R_r, lora_B = Q_r of Q R = matrix [N, K], whatever the scaling

    Raises ValueError for a rank above the smaller side, and a scaling that is not above 0.
    """
    _check(matrix, rank, scaling)
    Q, R = torch.linalg.qr(matrix.float())
    return Factors(R[:rank].contiguous(), Q[:, :rank].contiguous())


def start_adapter(model: Llama, name: str, start: str, originals: Mapping[str, Tensor] | None = None) -> None:
    """Gives a new adapter the numbers of one of STARTS; for those of SUBTRACTED a frozen copy, `start_name`, as well.

    originals  W [N, K] by the path of each linear, "layers.0.attention.wq", in the model's order of rows: for loftq
    Raises ValueError for a rank, scaling or DoRA that the start has no place for, naming the linear.
    """
    assert start in STARTS, start
    for path, config in layer_configs(model, name).items() if start != DEFAULT else ():
        layer = lora_layers(model)[path]
        if config.dora:
            raise ValueError(f"adapter {name!r}: the start {start} is of a LoRA, and this is a DoRA")
        stored = frozen_weight(layer.base)
        try:
            if start == LOFTQ:
                assert originals is not None
                error = originals[path].to(stored) - stored
                factors = leading_factors(error, config.rank, config.scaling)
            elif start == "pissa":
                factors = leading_factors(stored, config.rank, config.scaling)
            else:
                factors = orthonormal_factors(stored, config.rank, config.scaling)
        except ValueError as reason:
            raise ValueError(f"adapter {name!r}: the start {start} of {path}: {reason}") from None
        for parameter, value in zip((layer.lora_A[name], layer.lora_B[name]), factors, strict=True):
            parameter.data.copy_(value)
        if start in SUBTRACTED:
            lora_A, lora_B = (value.to(stored.device) for value in factors)
            layer.add(start_name(name), config, lora_A, lora_B, trainable=False)


def start_name(name: str) -> str:
    """The name of the frozen start of an adapter."""
    return f"{name}-start"


def as_active(name: str, start: str) -> dict[str, float]:
    """The mix in which an adapter of a start is worn, for `use_adapter`."""
    return {name: 1.0, start_name(name): -1.0} if start in SUBTRACTED else {name: 1.0}


def joined(config: AdapterConfig, now: Factors, start: Factors) -> tuple[AdapterConfig, Factors]:
    """The one adapter that is `now` less `start`, both of a config: of twice the rank, and the same scaling

    scaling [lora_B -lora_B0] [lora_A; lora_A0] = scaling (lora_B lora_A - lora_B0 lora_A0)
    """
    alpha = config.alpha * (math.sqrt(2) if config.rslora else 2)
    lora_A, lora_B = torch.cat([now.lora_A, start.lora_A]), torch.cat([now.lora_B, -start.lora_B], dim=1)
    return replace(config, rank=2 * config.rank, alpha=alpha), Factors(lora_A, lora_B)


def start_parameters(model: Llama, name: str) -> dict[str, nn.Parameter]:
    """The matrices of an adapter's frozen start by the path of their layer; {} of a start that has none."""
    layers = lora_layers(model)
    return {
        f"{path}.{matrix}": getattr(layer, matrix)[start_name(name)]
        for path, layer in layers.items()
        if start_name(name) in layer.configs
        for matrix in ("lora_A", "lora_B")
    }


def _check(matrix: Tensor, rank: int, scaling: float) -> None:
    if rank > min(matrix.shape):
        raise ValueError(
            f"its rank must be at most {min(matrix.shape)}, the smaller side of {list(matrix.shape)}, got {rank}"
        )
    if not scaling > 0:
        raise ValueError(f"its scaling must be above 0, got {scaling}")
