"""A quantized weight in memory: what each number format stores, and nothing about how to compute with it.

N out_features, K in_features. A weight [N, K] is flattened row by row before it is cut into blocks.
"""

import math
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from torch import Tensor

from .codebooks import CODEBOOKS, dynamic8

FourBit = Literal["nf4", "fp4"]

# What the kernels in Triton and C read and write; everything else goes through plain torch.
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
NESTED_BLOCKSIZE = 256  # maxima that share one, of a weight that is quantized here; a stored one may have another
BLOCKSIZES = tuple(2**power for power in range(5, 13))  # 32 ... 4096


@dataclass(frozen=True)
class NestedAbsmax:
    """Block maxima stored in 8 bits: absmax[i] = dynamic8[codes[i]] * nested_absmax[i // 256] + offset

    The double quantization of QLoRA (arXiv 2305.14314, section 3). codes uint8 [blocks],
    nested_absmax float32 [ceil(blocks / 256)], offset float32 [] (the mean of the maxima).
    levels float32 [256]: in place of dynamic8, where a file has other last bits (`codebook`).
    """

    codes: Tensor
    nested_absmax: Tensor
    offset: Tensor
    nested_blocksize: int = NESTED_BLOCKSIZE
    levels: Tensor | None = None

    @property
    def codebook(self) -> Tensor:
        """The 256 levels, float32."""
        return dynamic8() if self.levels is None else self.levels


@dataclass(frozen=True)
class _FourBitCodes:
    """What every layout of 4-bit codes has; in which order they lie is the layout's own.

    levels  float32 [16], in place of those of `format`, where a file has other last bits
    """

    codes: Tensor
    absmax: Tensor | NestedAbsmax
    format: FourBit
    blocksize: int
    shape: tuple[int, ...]
    levels: Tensor | None = None

    @property
    def codebook(self) -> Tensor:
        """The 16 levels by their code in files, float32."""
        return CODEBOOKS[self.format]() if self.levels is None else self.levels

    @property
    def name(self) -> str:
        """The format as `weights=` names it: "nf4", "nf4-dq", "fp4" or "fp4-dq"."""
        return self.format + ("-dq" if isinstance(self.absmax, NestedAbsmax) else "")

    def tensors(self) -> dict[str, Tensor]:
        """Every stored tensor by its name in this legend."""
        tensors = {"codes": self.codes}
        if isinstance(self.absmax, NestedAbsmax):
            nested = self.absmax
            tensors |= {"absmax": nested.codes, "nested_absmax": nested.nested_absmax, "offset": nested.offset}
            if nested.levels is not None:
                tensors["nested_levels"] = nested.levels
        else:
            tensors["absmax"] = self.absmax
        if self.levels is not None:
            tensors["levels"] = self.levels
        return tensors

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """The same weight over other storage (another device, say): the inverse of `tensors`."""
        absmax: Tensor | NestedAbsmax = tensors["absmax"]
        if isinstance(self.absmax, NestedAbsmax):
            absmax = replace(
                self.absmax,
                codes=tensors["absmax"],
                nested_absmax=tensors["nested_absmax"],
                offset=tensors["offset"],
                levels=tensors.get("nested_levels"),
            )
        return replace(self, codes=tensors["codes"], absmax=absmax, levels=tensors.get("levels"))


@dataclass(frozen=True)
class Blockwise4bit(_FourBitCodes):
    """W.flatten()[i] = codebook[code i] * absmax[i // blocksize]    (QLoRA, arXiv 2305.14314, section 3)

    codes   uint8 [ceil(N*K / 2)], two codes a byte, the first in the high nibble
    absmax  float32 [ceil(N*K / blocksize)], or the same in 8 bits
    As it is stored in files, and as it is quantized.
    """


@dataclass(frozen=True)
class Repacked4bit(_FourBitCodes):
    """W[n, k] = codebook[code_order[nibble of (n, k)]] * absmax[n, k // blocksize]

    codes   uint8 [K / blocksize / group, N, group, blocksize / 2]
    absmax  float32 [K / blocksize / group, N, group], or 8-bit codes of that shape in a NestedAbsmax, whose own maxima
            stay one to 256 blocks, counted row by row
    The order in which GPU kernels read: see `repack`. The same number of bytes, and the same numbers.
    """

    @property
    def group(self) -> int:
        """Blocks of a row that lie together. It divides K / blocksize, so a group is within one nested block."""
        return self.codes.shape[2]


@dataclass(frozen=True)
class RowwiseInt8:
    """W[n, k] = codes[n, k] * scale[n] / 127    (LLM.int8(), arXiv 2208.07339, section 2)

    codes int8 [N, K] in -127..127, scale float32 [N], the largest magnitude of each row.
    """

    codes: Tensor
    scale: Tensor

    name = "int8"

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.codes.shape)

    def tensors(self) -> dict[str, Tensor]:
        """Every stored tensor by its name in this legend."""
        return {"codes": self.codes, "scale": self.scale}

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """The same weight over other storage: the inverse of `tensors`."""
        return replace(self, **tensors)


QuantizedWeight = Blockwise4bit | Repacked4bit | RowwiseInt8


def check_stored(weight: QuantizedWeight) -> None:
    """Raises ValueError unless every stored tensor has the dtype and size that the shape asks for, on one device.

    A kernel follows pointers: what is refused here would be memory of someone else there.
    """
    for name, (dtype, count) in _stored_parts(weight).items():
        tensor = weight.tensors()[name]
        if (tensor.dtype, tensor.numel()) != (dtype, count):
            got = f"{tensor.dtype} [{tensor.numel()}]"
            raise ValueError(f"{name} must be {dtype} [{count}] for W {tuple(weight.shape)}, got {got}")
        if tensor.device != weight.codes.device:
            raise ValueError(f"{name} must be on {weight.codes.device}, where the codes are, got {tensor.device}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()}")
    if isinstance(weight, Repacked4bit):
        n, k = weight.shape
        wanted = (k // weight.blocksize // weight.group, n, weight.group, weight.blocksize // 2)
        if tuple(weight.codes.shape) != wanted:
            raise ValueError(f"codes must be {wanted} for W {(n, k)}, got shape {tuple(weight.codes.shape)}")


def _stored_parts(weight: QuantizedWeight) -> dict[str, tuple[torch.dtype, int]]:
    """Dtype and number of elements of each stored tensor, as the shape has it."""
    count = math.prod(weight.shape)
    if isinstance(weight, RowwiseInt8):
        return {"codes": (torch.int8, count), "scale": (torch.float32, weight.shape[0])}
    blocks = math.ceil(count / weight.blocksize)
    parts = {"codes": (torch.uint8, math.ceil(count / 2)), "absmax": (torch.float32, blocks)}
    if isinstance(weight.absmax, NestedAbsmax):
        parts["absmax"] = (torch.uint8, blocks)
        parts["nested_absmax"] = (torch.float32, math.ceil(blocks / weight.absmax.nested_blocksize))
        parts["offset"] = (torch.float32, 1)
        if weight.absmax.levels is not None:
            parts["nested_levels"] = (torch.float32, 256)
    if weight.levels is not None:
        parts["levels"] = (torch.float32, 16)
    return parts


def stored_bytes(weight: QuantizedWeight) -> int:
    """Bytes of codes and statistics together, and of levels that are the file's own; the format's are constants."""
    return sum(tensor.numel() * tensor.element_size() for tensor in weight.tensors().values())


def expected_bytes(
    shape: tuple[int, ...], name: str, blocksize: int = 64, nested_blocksize: int = NESTED_BLOCKSIZE
) -> int:
    """Bytes that a weight of this shape takes in "fp32", "bf16", "fp16", "int8", "nf4", "nf4-dq", "fp4" or "fp4-dq"."""
    count = math.prod(shape)
    if name in DENSE_DTYPES:
        return count * DENSE_DTYPES[name].itemsize
    if name == "int8":
        return count + 4 * math.prod(shape[:-1])
    blocks = math.ceil(count / blocksize)
    statistics = blocks + 4 * math.ceil(blocks / nested_blocksize) + 4 if name.endswith("-dq") else 4 * blocks
    return math.ceil(count / 2) + statistics


DENSE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZED_NAMES = ("int8", "nf4", "nf4-dq", "fp4", "fp4-dq")
