"""The tensor by which GGUF says that RoPE is scaled as in Llama 3.1: what each frequency is divided by."""

import torch
from torch import Tensor

from ..model.config import RopeScaling

ROPE_FACTORS = "rope_freqs.weight"


def llama3_factors(head_dim: int, theta: float, scaling: RopeScaling) -> Tensor:
    """1 for short waves, `factor` for long ones, between them a smooth passage (`RopeScaling`); float32 [h/2]"""
    frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
    turns = scaling.original_max_seq_len * frequencies / (2 * torch.pi)
    smooth = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    smooth = smooth.clamp(0, 1)
    factors: Tensor = 1 / ((1 - smooth) / scaling.factor + smooth)
    return factors.float()
