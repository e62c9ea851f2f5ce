"""The kernels whose static cost is known: one entry each, under the name of its rows in results/static_cost.json.

Here those of quantized weights; `llama_op_cases` has those of Llama's other operations.
"""

from dataclasses import replace

from lowrank.kernels.cuda import pairs

from .adapter_cases import ADAPTER_CASES
from .case import ALL_NVIDIA, NVIDIA, Argument, Case
from .decode_step_cases import STEP_CASES
from .llama_op_cases import FUSED_CASES

QUANTIZE_TILE = 4096  # of kernels.triton.quantize and .int8_linear, which cannot be imported without Triton
INT8_BLOCKS = (32, 32, 64)
NESTED_BITS = 8 / 64 + 32 / (64 * 256)  # the statistics of a weight with nested maxima


def decode_linear(m: int, dtype: str = "bf16", nested: bool = True, blocksize: int = 64) -> Case:
    """Groups of 256 weights, x with contiguous rows, the sum shared by several programs."""
    block_n, warps = (2048 // blocksize, 2) if dtype == "fp32" else (64, 2 if m < 64 else 4)
    tile = (m, block_n, warps, 3)
    case = _from_4_bits("decode_linear", "triton.gemv_kernels:decode_linear_kernel", tile, dtype, nested, blocksize)
    of_a_group: dict[str, Argument] = {"absmax_ptr": "*i32" if blocksize == 64 else "*i16"} if nested else {}
    return replace(case, arguments={**case.arguments, **of_a_group}, elements=256 * block_n)


def decode_pairs(m: int, dtype: str = "bf16", nested: bool = True, blocksize: int = 64) -> Case:
    """By a table of pairs, in CUDA C: a warp takes 16 rows and 256 weights at a time. K is 4096."""
    constants = pairs.constants(m, blocksize, 256 if nested else 0, dtype == "bf16")
    about = f"M{m} {dtype} {'nf4-dq' if nested else 'nf4'}" + (" blocks of 128" if blocksize == 128 else "")
    return Case(
        name=f"decode_pairs {about}",
        kernel="kernels.cuda.gemv:decode_pairs_kernel",
        arguments=dict(constants),
        elements=pairs.TILE * pairs.GROUP * pairs.THREADS // 32,
        bytes=(4 + (8 / blocksize + 32 / (256 * blocksize) if nested else 32 / blocksize)) / 8,
        flops=16,
        targets=ALL_NVIDIA,
        options={"shared": pairs.shared_bytes(m, 4096)},
    )


def decode_linear_backward(
    m: int, dtype: str = "bf16", nested: bool = True, blocksize: int = 64, whole: bool = True
) -> Case:
    """The same for the gradient; whole: N is a multiple of the tile."""
    tile = (m, 2048 // blocksize if dtype == "fp32" else 64, 2, 3)
    return _from_4_bits(
        "decode_dx", "triton.gemv_kernels:decode_linear_backward_kernel", tile, dtype, nested, blocksize, whole
    )


def fused_linear(dtype: str = "bf16", nested: bool = True, blocksize: int = 64) -> Case:
    """128 rows of x, W scaled in registers."""
    return _from_4_bits(
        "fused_linear", "triton.gemm_kernels:fused_linear_kernel", (128, 128, 8, 3), dtype, nested, blocksize
    )


def fused_linear_backward(
    m: int, dtype: str = "bf16", nested: bool = True, blocksize: int = 64, whole: bool = True
) -> Case:
    """The same for the gradient: 128 rows on the GPUs whose matrix units take both operands from shared memory."""
    case = _from_4_bits(
        "fused_dx", "triton.gemm_kernels:fused_linear_backward_kernel", (m, 64, 8, 2), dtype, nested, blocksize, whole
    )
    targets = ("sm_90", "sm_100") if m == 128 else case.targets
    return replace(case, targets=targets, elements=256 * 64)  # all blocks of a group at a time


def _from_4_bits(
    name: str,
    kernel: str,
    tile: tuple[int, int, int, int],
    dtype: str,
    nested: bool,
    blocksize: int,
    whole: bool | None = None,
) -> Case:
    """A kernel of `decode` or `fused_linear`, all of which take the same arguments; whole: for those of dX alone."""
    block_m, block_n, warps, stages = tile
    x, *strides = ("x_ptr", "stride_xm", "stride_xk") if whole is None else ("dy_ptr", "stride_dym", "stride_dyn")
    absmax = "*fp32" if not nested else "*u8"
    arguments: dict[str, Argument] = {"out_ptr": "*fp32", x: f"*{dtype}", "codes_ptr": "*u8", "absmax_ptr": absmax}
    arguments |= {"levels_ptr": f"*{dtype}", "table_ptr": "*i32"}
    arguments |= dict.fromkeys(("dynamic8_ptr", "nested_absmax_ptr", "offset_ptr"), "*fp32")
    arguments |= {**dict.fromkeys(("M", "N", "groups", "splits", strides[0]), "i32"), strides[1]: 1}
    arguments |= {"BLOCK_M": block_m, "BLOCK_N": block_n, "BLOCKSIZE": blocksize, "GROUP": 256 // blocksize}
    arguments |= {"NESTED_BLOCKSIZE": 256 if nested else 0, "STAGES": stages, "ASSEMBLY": dtype != "fp32"}
    if whole is not None:
        arguments["WHOLE_TILES"] = whole
    about = f"M{block_m} {dtype} {'nf4-dq' if nested else 'nf4'}" + (" blocks of 128" if blocksize == 128 else "")
    return Case(
        name=f"{name} {about}" + (" ragged" if whole is False else ""),
        kernel=f"kernels.{kernel}",
        arguments=arguments,
        elements=blocksize * block_n,
        bytes=(4 + (8 / blocksize + 32 / (256 * blocksize) if nested else 32 / blocksize)) / 8,
        flops=2 * block_m,
        aligned=("N", strides[0]),
        targets=NVIDIA,  # elsewhere the plain twin spills: a path of AMD's own is not written
        options={"num_warps": warps, "enable_fp_fusion": True},
    )


def add_parts(splits: int) -> Case:
    return Case(
        name=f"add_parts {splits} bf16",
        kernel="kernels.triton.gemv_kernels:add_parts_kernel",
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
        kernel="kernels.triton.dequantize:dequantize_4bit_kernel",
        arguments={**pointers, **dict.fromkeys(("count", "columns", "row_stride"), "i32"), **constants},
        elements=4096,
        bytes=(4 + NESTED_BITS if nested else 4.5) / 8 + (4 if dtype == "fp32" else 2),
        aligned=("count", "columns", "row_stride"),
        options={"enable_fp_fusion": False},
    )


def dequantize_repacked(dtype: str, nested: bool) -> Case:
    """From the layout of the decode kernels, into rows at any distance."""
    pointers = {
        "out_ptr": f"*{dtype}",
        "codes_ptr": "*u8",
        "levels_ptr": "*fp32",
        "absmax_ptr": "*u8" if nested else "*fp32",
    }
    pointers |= dict.fromkeys(("dynamic8_ptr", "nested_absmax_ptr", "offset_ptr"), "*fp32")
    constants: dict[str, Argument] = {
        "BLOCKSIZE": 64,
        "GROUP": 4,
        "NESTED_BLOCKSIZE": 256 if nested else 0,
        "BLOCK_N": 16,
    }
    return Case(
        name=f"dequantize_repacked {dtype} {'nf4-dq' if nested else 'nf4'}",
        kernel="kernels.triton.dequantize:dequantize_repacked_kernel",
        arguments={**pointers, **dict.fromkeys(("N", "groups", "row_stride"), "i32"), **constants},
        elements=4096,
        bytes=(4 + NESTED_BITS if nested else 4.5) / 8 + (4 if dtype == "fp32" else 2),
        aligned=("N", "groups", "row_stride"),
        options={"enable_fp_fusion": False},
    )


def quantize(dtype: str) -> Case:
    """To 4 bits, the maxima in float32."""
    pointers = {"codes_ptr": "*u8", "absmax_ptr": "*fp32", "w_ptr": f"*{dtype}", "offset_ptr": "*fp32"}
    pointers |= {"midpoints_ptr": "*fp32", "order_ptr": "*u8"}
    return Case(
        name=f"quantize {dtype} nf4",
        kernel="kernels.triton.quantize:quantize_kernel",
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
        kernel="kernels.triton.int8_linear:int8_product_kernel",
        arguments={**pointers, **dict.fromkeys(sizes, "i32"), **strides}
        | {"SCALE_OF_OUTER": forward, "BLOCK_M": block_m, "BLOCK_OUTER": block_outer, "BLOCK_INNER": block_inner},
        elements=block_outer * block_inner,
        bytes=1.0,
        flops=2 * block_m,
        aligned=tuple(size for size in sizes if size not in strides),
        targets=NVIDIA,
    )


CASES = (
    decode_pairs(1),
    decode_pairs(1, nested=False),
    decode_pairs(1, "fp16"),
    decode_pairs(1, blocksize=128),
    decode_pairs(2),
    decode_pairs(4),
    replace(decode_linear(8), targets=ALL_NVIDIA),
    replace(decode_linear(8, nested=False), targets=ALL_NVIDIA),
    decode_linear(8, "fp16"),
    decode_linear(8, blocksize=128),
    decode_linear(16),
    decode_linear(32),
    decode_linear(32, "fp16", nested=False, blocksize=128),
    decode_linear(64),
    decode_linear(64, "fp16", nested=False, blocksize=128),
    decode_linear(8, "fp32"),
    decode_linear(8, "fp32", blocksize=128),
    decode_linear_backward(8),
    decode_linear_backward(8, nested=False),
    decode_linear_backward(8, "fp16"),
    decode_linear_backward(8, whole=False),
    decode_linear_backward(16),
    decode_linear_backward(32),
    decode_linear_backward(32, "fp16", nested=False, blocksize=128, whole=False),
    decode_linear_backward(64),
    decode_linear_backward(64, "fp16", nested=False, whole=False),
    decode_linear_backward(8, "fp32"),
    decode_linear_backward(8, "fp32", blocksize=128, whole=False),
    fused_linear(),
    fused_linear(nested=False),
    fused_linear("fp16", blocksize=128),
    fused_linear_backward(64),
    fused_linear_backward(64, "fp16", nested=False, blocksize=128, whole=False),
    fused_linear_backward(128),
    fused_linear_backward(128, "fp16", nested=False, blocksize=128, whole=False),
    add_parts(8),
    dequantize("bf16", nested=True),
    dequantize("bf16", nested=False),
    dequantize("bf16", nested=True, wide=True),
    dequantize_repacked("bf16", nested=True),
    dequantize_repacked("bf16", nested=False),
    quantize("bf16"),
    int8_product("bf16", forward=True),
    int8_product("bf16", forward=False),
    *STEP_CASES,
    *ADAPTER_CASES,
    *FUSED_CASES,
)
