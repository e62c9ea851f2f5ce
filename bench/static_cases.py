"""The kernels whose static cost is known: one entry each. `static_cost` compiles them and counts.

An entry is a kernel with its arguments as the compiler sees them: a string is a type ("*bf16", "i32"), anything else
the value of a constant. Pointers, and the integers in `aligned`, are multiples of 16.
"""

from dataclasses import dataclass, field
from typing import Any

Argument = str | int | bool | None
NVIDIA = ("sm_80", "sm_90", "sm_100")


@dataclass(frozen=True)
class Case:
    """A kernel, for certain types and constants, and what is needed to count its cost by the element.

    elements  weights, or whatever is counted, that a program takes in a turn of its inner loop, or in all without one
    bytes     per element, what has to be moved to and from memory
    flops     per element, what is computed in tensor cores
    """

    name: str
    kernel: str  # "module:function", below lowrank
    arguments: dict[str, Argument]
    elements: int
    bytes: float
    flops: float = 0.0
    aligned: tuple[str, ...] = ()
    targets: tuple[str, ...] = (*NVIDIA, "gfx942")
    options: dict[str, Any] = field(default_factory=dict)


QUANTIZE_TILE = 4096  # of kernels.quantize and kernels.int8, which cannot be imported without Triton
INT8_BLOCKS = (32, 32, 64)
NESTED_BITS = 8 / 64 + 32 / (64 * 256)  # the statistics of a weight with nested maxima


def decode_linear(block_m: int, block_n: int, num_warps: int, dtype: str = "bf16", nested: bool = True) -> Case:
    """Blocks of 64 in groups of four, x with contiguous rows, the sum shared by several programs."""
    group = 4
    return Case(
        name=f"decode_linear M{block_m} {dtype} {'nf4-dq' if nested else 'nf4'}",
        kernel="kernels.decode_kernels:decode_linear_kernel",
        arguments=_decode_arguments(dtype, "*i32" if nested else "*fp32", "x_ptr", "stride_xm", "stride_xk")
        | _decode_constants(block_m, block_n, dtype, nested),
        elements=group * 64 * block_n,
        bytes=(4 + NESTED_BITS if nested else 4.5) / 8,
        flops=2 * block_m,
        aligned=("N", "stride_xm"),
        targets=NVIDIA,  # elsewhere the plain twin spills: a decode path of AMD's own is not written yet
        options={"num_warps": num_warps, "enable_fp_fusion": True},
    )


def decode_dx(block_m: int, block_n: int, num_warps: int, dtype: str = "bf16", nested: bool = True) -> Case:
    """The same for the gradient."""
    return Case(
        name=f"decode_dx M{block_m} {dtype} {'nf4-dq' if nested else 'nf4'}",
        kernel="kernels.decode_kernels:decode_dx_kernel",
        arguments=_decode_arguments(dtype, "*u8" if nested else "*fp32", "dy_ptr", "stride_dym", "stride_dyn")
        | _decode_constants(block_m, block_n, dtype, nested),
        elements=64 * block_n,
        bytes=(4 + NESTED_BITS if nested else 4.5) / 8,
        flops=2 * block_m,
        aligned=("N", "stride_dym"),
        targets=NVIDIA,
        options={"num_warps": num_warps, "enable_fp_fusion": True},
    )


def _decode_arguments(dtype: str, absmax: str, x: str, stride_m: str, stride_last: str) -> dict[str, Argument]:
    pointers = {"out_ptr": "*fp32", x: f"*{dtype}", "codes_ptr": "*u8", "absmax_ptr": absmax}
    pointers |= {"levels_ptr": f"*{dtype}", "table_ptr": "*i32"}
    pointers |= dict.fromkeys(("dynamic8_ptr", "nested_absmax_ptr", "offset_ptr"), "*fp32")
    return {**pointers, **dict.fromkeys(("M", "N", "groups", "splits", stride_m), "i32"), stride_last: 1}


def _decode_constants(block_m: int, block_n: int, dtype: str, nested: bool) -> dict[str, Argument]:
    constants: dict[str, Argument] = {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCKSIZE": 64, "GROUP": 4}
    return constants | {"NESTED_BLOCKSIZE": 256 if nested else 0, "STAGES": 3, "ASSEMBLY": dtype != "fp32"}


def add_parts(splits: int) -> Case:
    return Case(
        name=f"add_parts {splits} bf16",
        kernel="kernels.decode_kernels:add_parts_kernel",
        arguments={"out_ptr": "*bf16", "parts_ptr": "*fp32", "count": "i32", "SPLITS": splits, "TILE": 256},
        elements=256,
        bytes=4 * splits + 2,
        aligned=("count",),
        options={"enable_fp_fusion": True},
    )


def dequantize(dtype: str, nested: bool, wide: bool = False) -> Case:
    """Rows of whole blocks, one behind another, or in the wider rows of the scratch that an adapter shares."""
    statistics = "*u8" if nested else "*fp32"
    pointers = {"out_ptr": f"*{dtype}", "codes_ptr": "*u8", "codebook_ptr": "*fp32", "absmax_ptr": statistics}
    pointers |= dict.fromkeys(("dynamic8_ptr", "nested_absmax_ptr", "offset_ptr"), "*fp32")
    constants: dict[str, Argument] = {"BLOCKSIZE": 64, "NESTED_BLOCKSIZE": 256 if nested else 0, "TILE": 4096}
    constants |= {"CONTIGUOUS": not wide, "WHOLE_BLOCKS": True}
    return Case(
        name=f"dequantize {dtype} {'nf4-dq' if nested else 'nf4'}{' wide rows' if wide else ''}",
        kernel="kernels.dequantize:dequantize_4bit_kernel",
        arguments={**pointers, **dict.fromkeys(("count", "columns", "row_stride"), "i32"), **constants},
        elements=4096,
        bytes=(4 + NESTED_BITS if nested else 4.5) / 8 + (4 if dtype == "fp32" else 2),
        aligned=("count", "columns", "row_stride"),
        options={"enable_fp_fusion": False},
    )


def quantize(dtype: str) -> Case:
    """To 4 bits, the maxima in float32."""
    pointers = {"codes_ptr": "*u8", "absmax_ptr": "*fp32", "w_ptr": f"*{dtype}", "offset_ptr": "*fp32"}
    pointers |= {"midpoints_ptr": "*fp32", "order_ptr": "*u8"}
    return Case(
        name=f"quantize {dtype} nf4",
        kernel="kernels.quantize:quantize_kernel",
        arguments={**pointers, "count": "i32", "BLOCKSIZE": 64, "BITS": 4, "TILE": QUANTIZE_TILE},
        elements=QUANTIZE_TILE,
        bytes=4.5 / 8 + (4 if dtype == "fp32" else 2),
        aligned=("count",),
        targets=NVIDIA,
    )


def int8_product(dtype: str, forward: bool) -> Case:
    """The scale on the accumulator forward, and on the tile of W for the gradient."""
    block_m, block_outer, block_inner = INT8_BLOCKS
    pointers = {"y_ptr": f"*{dtype}", "x_ptr": f"*{dtype}", "codes_ptr": "*i8", "scale_ptr": "*fp32"}
    sizes = ("rows", "outer", "inner", "outer_stride", "inner_stride")
    strides: dict[str, Argument] = {"inner_stride": 1} if forward else {"outer_stride": 1}
    return Case(
        name=f"int8 {'forward' if forward else 'dX'} {dtype}",
        kernel="kernels.int8:int8_product_kernel",
        arguments={**pointers, **dict.fromkeys(sizes, "i32"), **strides}
        | {"SCALE_OF_OUTER": forward, "BLOCK_M": block_m, "BLOCK_OUTER": block_outer, "BLOCK_INNER": block_inner},
        elements=block_outer * block_inner,
        bytes=1.0,
        flops=2 * block_m,
        aligned=tuple(size for size in sizes if size not in strides),
        targets=NVIDIA,
    )


CASES = (
    decode_linear(8, 64, 2),
    decode_linear(8, 64, 2, nested=False),
    decode_linear(8, 64, 2, dtype="fp16"),
    decode_linear(16, 64, 2),
    decode_linear(32, 64, 2),
    decode_linear(64, 64, 4),
    decode_linear(8, 32, 2, dtype="fp32"),
    decode_dx(8, 64, 2),
    decode_dx(16, 64, 2),
    decode_dx(32, 64, 2),
    decode_dx(64, 64, 4),
    decode_dx(8, 32, 2, dtype="fp32"),
    add_parts(8),
    dequantize("bf16", nested=True),
    dequantize("bf16", nested=False),
    dequantize("bf16", nested=True, wide=True),
    quantize("bf16"),
    int8_product("bf16", forward=True),
    int8_product("bf16", forward=False),
)
