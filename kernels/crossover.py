"""From which M on it is as fast to dequantize W first and leave the product to the vendor's GEMM.

Measured on each kind of GPU and stored in crossover.json: {"NVIDIA H200": {"nf4-dq": 256, ...}, ...}.
"""

import json
from functools import cache
from pathlib import Path

import torch

FILE = Path(__file__).with_name("crossover.json")

# W written to memory and read again is 4 bytes a weight, as long as the multiply-adds of 370 rows take on an H200
# (4.3 TB/s, 790 TFLOP/s). A fused kernel that reaches 40 % of the vendor's GEMM breaks even where M / 0.4 = M + 370.
NOT_MEASURED = 256


def is_here(device: torch.device) -> bool:
    """Whether this machine has the device, and not only its name."""
    return device.type == "cuda" and (device.index or 0) < torch.cuda.device_count()


@cache
def crossover(device: torch.device, format: str) -> tuple[int, str]:
    """(M, how it is known)"""
    if is_here(device):
        name = torch.cuda.get_device_name(device)
        measured = json.loads(FILE.read_text(encoding="utf-8")).get(name, {})
        if format in measured:
            return measured[format], f"measured on {name}"
        return NOT_MEASURED, f"not measured on {name}"
    return NOT_MEASURED, "not measured on this GPU"
