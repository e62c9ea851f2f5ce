"""A quantized weight in memory: the tensors that each number format stores, and nothing that computes with them.

N out_features, K in_features. A weight [N, K] is flattened row by row before it is cut into blocks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, NamedTuple, Self

import torch
from torch import Tensor

from .codebooks import CODEBOOKS, dynamic8

FourBit = Literal["nf4", "fp4"]

# What the kernels in Triton and C read and write; everything else goes through plain torch.
KERNEL_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
# Of weights that are quantized here; a file may have others.
BLOCKSIZE = 64  # weights that share a maximum
NESTED_BLOCKSIZE = 256  # maxima that share a nested maximum
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
    """The fields that every layout of 4-bit codes has; the layouts differ in the order of the codes.

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
        """Every stored tensor by its name in the docstring of the class."""
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
    absmax  float32 [ceil(N*K / blocksize)], or the same in 8 bits (`NestedAbsmax`)
    The layout of files, and the one that `quantize` returns.
    """


@dataclass(frozen=True)
class Repacked4bit(_FourBitCodes):
    """W[n, k] = codebook[code_order[nibble of (n, k)]] * absmax[n, k // blocksize]

    codes   uint8 [K / blocksize / group, N, group, blocksize / 2]
    absmax  float32 [K / blocksize / group, N, group], or 8-bit codes of that shape in a NestedAbsmax, whose own maxima
            stay one to 256 blocks, counted row by row
    The order in which GPU kernels read (see `repack`): the same codes in as many bytes.
    """

    @property
    def group(self) -> int:
        """Adjacent blocks of a row in one group. It divides K / blocksize, so a group is within one nested block."""
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
        """Every stored tensor by its name in the docstring of the class."""
        return {"codes": self.codes, "scale": self.scale}

    def with_tensors(self, tensors: dict[str, Tensor]) -> Self:
        """The same weight over other storage: the inverse of `tensors`."""
        return replace(self, **tensors)


QuantizedWeight = Blockwise4bit | Repacked4bit | RowwiseInt8


class Part(NamedTuple):
    """Shape and dtype of one stored tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the tensor."""
        return math.prod(self.shape) * self.dtype.itemsize


def parts(
    shape: tuple[int, ...],
    name: str,
    blocksize: int = BLOCKSIZE,
    nested_blocksize: int = NESTED_BLOCKSIZE,
    *,
    levels: bool = False,
    nested_levels: bool = False,
) -> dict[str, Part]:
    """The stored tensors of a weight W `shape`, in the layout of files, by their names in `tensors()` and in that order

    name      "int8", "nf4", "nf4-dq", "fp4" or "fp4-dq"; blocksizes apply to 4-bit formats only
    int8      codes int8 [N, K], scale float32 [N]
    4 bit     codes uint8 [ceil(N*K / 2)], absmax float32 [blocks], blocks = ceil(N*K / blocksize)
    "-dq"     absmax uint8 [blocks], nested_absmax float32 [ceil(blocks / nested_blocksize)], offset float32 []
    levels, nested_levels  with the codebooks, float32 [16] and [256], which a file has and a weight in memory need not
    """
    if name == "int8":
        return {"codes": Part(tuple(shape), torch.int8), "scale": Part(tuple(shape[:-1]), torch.float32)}
    count = math.prod(shape)
    blocks = -(-count // blocksize)
    has_nested = name.endswith("-dq")
    stored = {
        "codes": Part((-(-count // 2),), torch.uint8),
        "absmax": Part((blocks,), torch.uint8 if has_nested else torch.float32),
    }
    if has_nested:
        stored["nested_absmax"] = Part((-(-blocks // nested_blocksize),), torch.float32)
        stored["offset"] = Part((), torch.float32)
        if nested_levels:
            stored["nested_levels"] = Part((256,), torch.float32)
    if levels:
        stored["levels"] = Part((16,), torch.float32)
    return stored


def parts_of(weight: QuantizedWeight) -> Mapping[str, Part]:
    """`parts` for the shape, format and blocksizes of a weight."""
    if isinstance(weight, RowwiseInt8):
        return _cached_parts(weight.shape, "int8")
    nested = weight.absmax if isinstance(weight.absmax, NestedAbsmax) else None
    nested_blocksize = nested.nested_blocksize if nested else NESTED_BLOCKSIZE
    has_nested_levels = nested is not None and nested.levels is not None
    return _cached_parts(
        tuple(weight.shape),
        weight.name,
        weight.blocksize,
        nested_blocksize,
        weight.levels is not None,
        has_nested_levels,
    )


@lru_cache(maxsize=256)  # asked for at every launch of a kernel; a model has a handful of shapes
def _cached_parts(
    shape: tuple[int, ...],
    name: str,
    blocksize: int = BLOCKSIZE,
    nested_blocksize: int = NESTED_BLOCKSIZE,
    levels: bool = False,
    nested_levels: bool = False,
) -> Mapping[str, Part]:
    return parts(shape, name, blocksize, nested_blocksize, levels=levels, nested_levels=nested_levels)


def check_stored(weight: QuantizedWeight) -> None:
    """Raises ValueError unless every stored tensor has the dtype and size that the shape requires, on one device.

    Kernels do not check bounds: a wrong size here is an out-of-bounds read there.
    """
    tensors = weight.tensors()
    for name, part in parts_of(weight).items():
        tensor, count = tensors[name], math.prod(part.shape)
        if (tensor.dtype, tensor.numel()) != (part.dtype, count):
            got = f"{tensor.dtype} [{tensor.numel()}]"
            raise ValueError(f"{name} must be {part.dtype} [{count}] for W {tuple(weight.shape)}, got {got}")
        if tensor.device != weight.codes.device:
            raise ValueError(f"{name} must be on {weight.codes.device}, where the codes are, got {tensor.device}")
        if not tensor.is_contiguous():
            raise ValueError(f"{name} must be contiguous, got strides {tensor.stride()}")
    if isinstance(weight, Repacked4bit):
        n, k = weight.shape
        expected = (k // weight.blocksize // weight.group, n, weight.group, weight.blocksize // 2)
        if tuple(weight.codes.shape) != expected:
            raise ValueError(f"codes must be {expected} for W {(n, k)}, got shape {tuple(weight.codes.shape)}")


def check_operand(
    name: str, x: Tensor, weight: Repacked4bit, features: str, last: int, dtypes: Sequence[torch.dtype]
) -> None:
    """Raises ValueError for an x of another dtype, width or device, and for a weight whose tensors do not fit it."""
    if x.dtype not in dtypes:
        raise ValueError(f"{name} must be of {', '.join(map(str, dtypes))}, got {x.dtype}")
    if x.dim() == 0 or x.shape[-1] != last:
        raise ValueError(f"{name} must end in {features} {last}, got shape {tuple(x.shape)}")
    if x.device != weight.codes.device:
        raise ValueError(f"{name} must be on the device of the weight, {weight.codes.device}, got {x.device}")
    check_stored(weight)


def stored_bytes(weight: QuantizedWeight) -> int:
    """Bytes of codes and statistics, and of levels other than the format's; the format's own are constants."""
    return sum(tensor.nbytes for tensor in weight.tensors().values())


def expected_bytes(
    shape: tuple[int, ...], name: str, blocksize: int = BLOCKSIZE, nested_blocksize: int = NESTED_BLOCKSIZE
) -> int:
    """Bytes that a weight of this shape takes in "fp32", "bf16", "fp16", "int8", "nf4", "nf4-dq", "fp4" or "fp4-dq"."""
    if name in DENSE_DTYPES:
        return math.prod(shape) * DENSE_DTYPES[name].itemsize
    return sum(part.nbytes for part in parts(shape, name, blocksize, nested_blocksize).values())


DENSE_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
QUANTIZED_NAMES = ("int8", "nf4", "nf4-dq", "fp4", "fp4-dq")
