"""The codes of a quantized weight, taken out of their bytes: which level each weight has, and how often each is used.

N out_features, K in_features; what is measured is measured in float64.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..weights.quantized_weight import NestedAbsmax, QuantizedWeight, RowwiseInt8, stored_bytes
from ..weights.repack import to_file_layout
from .weights import dequantize, dequantize_absmax

INT8_LEVELS = 255  # codes from -127 to 127


@dataclass(frozen=True)
class WeightError:
    """The error of a weight in a number format:  e = W - Q(W)

    mse              mean e^2;  largest: max |e|
    snr_db           10 log10(sum W^2 / sum e^2), None where nothing is lost, or nothing is there
    bits_per_weight  codes and statistics as they are stored
    """

    format: str
    mse: float
    snr_db: float | None
    largest: float
    bits_per_weight: float


def unpacked(codes: Tensor, start: int, end: int) -> Tensor:
    """The 4-bit codes of the weights from `start` to `end`: the first of a byte is in its high nibble"""
    packed = codes.flatten()[start // 2 : -(-end // 2)]
    return torch.stack([packed >> 4, packed & 15], dim=1).flatten()[start % 2 :][: end - start]


def codes_of(weight: QuantizedWeight) -> Tensor:
    """The code of each weight: uint8 [N, K], 0 to 15, as files have them; int8 [N, K], -127 to 127"""
    stored = to_file_layout(weight)
    if isinstance(stored, RowwiseInt8):
        return stored.codes
    return unpacked(stored.codes, 0, math.prod(stored.shape)).view(stored.shape)


def levels_of(weight: QuantizedWeight) -> Tensor:
    """The levels by their code, float32: [16], or those of int8, k / 127 for k from -127 to 127, [255]"""
    if isinstance(weight, RowwiseInt8):
        return torch.arange(-127, 128, dtype=torch.float32, device=weight.codes.device) / 127
    return weight.codebook.to(weight.codes.device)


def absmax_of(weight: QuantizedWeight) -> Tensor:
    """The maximum that each block is multiplied by, float32 [blocks] in the order of files; of int8, of each row [N]"""
    stored = to_file_layout(weight)
    if isinstance(stored, RowwiseInt8):
        return stored.scale
    return dequantize_absmax(stored.absmax) if isinstance(stored.absmax, NestedAbsmax) else stored.absmax


def code_counts(weight: QuantizedWeight) -> Tensor:
    """Counts of each code: int64 [16] by code, or [255] from -127 to 127"""
    stored = to_file_layout(weight)
    if isinstance(stored, RowwiseInt8):
        return torch.bincount(stored.codes.flatten().int() + 127, minlength=INT8_LEVELS)
    pairs = torch.bincount(stored.codes.flatten(), minlength=256).view(16, 16)
    counts = pairs.sum(dim=0) + pairs.sum(dim=1)
    if math.prod(stored.shape) % 2:
        counts[int(stored.codes[-1]) & 15] -= 1  # what fills up the last byte is no weight
    return counts


def entropy_bits(counts: Tensor) -> float:
    """- sum p log2 p"""
    share = counts[counts > 0].double() / counts.sum()
    return max(0.0, float(-(share * share.log2()).sum()))


def error_of(weight: QuantizedWeight, w: Tensor, name: str = "w") -> WeightError:
    """The error of a quantized weight of W [N, K].

    Raises ValueError, with `name`, for a W of another shape.
    """
    if tuple(w.shape) != tuple(weight.shape):
        raise ValueError(f"{name} must be {tuple(weight.shape)}, the shape of the weight, got {tuple(w.shape)}")
    exact = w.detach().double()
    lost = exact - dequantize(weight).double()
    energy, lost_energy = float(exact.square().sum()), float(lost.square().sum())
    return WeightError(
        weight.name,
        lost_energy / w.numel(),
        snr_db(energy, lost_energy),
        float(lost.abs().max()),
        8 * stored_bytes(weight) / w.numel(),
    )


def snr_db(energy: float, lost: float) -> float | None:
    """10 log10(energy / lost) of two sums of squares, None where one is 0"""
    return 10 * math.log10(energy / lost) if energy > 0 and lost > 0 else None
