"""The static cost of adapters that ride in the products with W: of Llama 2 7B in bfloat16 and nf4-dq, rank 8 or 64."""

from .case import NVIDIA, Argument, Case

BYTES_OF_W = (4 + 8 / 64 + 32 / (64 * 256)) / 8
TILE = 4096  # weights: of kernels.triton.dequantize, which cannot be imported without Triton


def block_matrix(rank: int) -> Case:
    """W of three linears, dequantized, with A and B of each: an element is a weight."""
    arguments: dict[str, Argument] = {"z_ptr": "*bf16", "levels_ptr": "*fp32", "dynamic8_ptr": "*fp32"}
    for i in range(3):
        kinds = (("codes", "*u8"), ("absmax", "*u8"), ("nested", "*fp32"), ("offset", "*fp32"), ("a", "*fp32"))
        arguments |= {f"{name}{i}_ptr": kind for name, kind in (*kinds, ("b", "*fp32"))}
        arguments |= {f"N{i}": "i32", f"rank{i}": "i32", f"scaling{i}": "fp32"}
    arguments |= dict.fromkeys(("groups", "row_stride", "R"), "i32")
    block_r = 1 << (3 * rank - 1).bit_length()
    arguments |= {"BLOCKSIZE": 64, "GROUP": 4, "NESTED_BLOCKSIZE": 256, "BLOCK_N": TILE // 256, "BLOCK_R": block_r}
    return Case(
        name=f"block_matrix bf16 nf4-dq rank {rank}",
        kernel="kernels.triton.riding_adapter_kernels:block_matrix_kernel",
        arguments=arguments,
        elements=TILE,
        bytes=BYTES_OF_W + 2,
        aligned=("N0", "N1", "N2", "groups", "row_stride"),
        targets=NVIDIA,
        options={"enable_fp_fusion": False},
    )


def beside(is_backward: bool, block_r: int) -> Case:
    """A tile of 32 rows: an element is a number of x, or of dY of three linears, that is copied."""
    block_m, block_c = 32, min(128, 8192 // block_r)
    pointers = ("left_ptr", "inner_ptr", "x0_ptr", "x1_ptr", "x2_ptr", "narrow_ptr")
    arguments: dict[str, Argument] = {**dict.fromkeys(pointers, "*bf16"), "mask_ptr": "*i1"}
    numbers = ("width0", "width1", "width2", "stride0", "stride1", "stride2", "left_stride")
    arguments |= dict.fromkeys(("M", "R", *numbers, "masked", "rows_a_mask"), "i32")
    arguments |= {"stride_c": "i32", "stride_j": 1} if is_backward else {"stride_c": 1, "stride_j": "i32"}
    arguments |= {"COUNT": 3 if is_backward else 1, "HAS_MASK": False, "STAGES": 3}
    return Case(
        name=f"beside {'dY' if is_backward else 'x'} bf16, {block_r} ranks",
        kernel="kernels.triton.riding_adapter_kernels:beside_kernel",
        arguments={**arguments, "BLOCK_M": block_m, "BLOCK_C": block_c, "BLOCK_R": block_r},
        elements=block_m * block_c,
        bytes=4.0,
        flops=2 * block_r,
        aligned=("R", *numbers, "stride_c" if is_backward else "stride_j"),
        targets=NVIDIA,
        options={"enable_fp_fusion": True},
    )


def matrix_gradients(block_r: int) -> Case:
    """dA and dB of three linears: an element is a number of x or dY."""
    pointers = ("x_ptr", "dy0_ptr", "dy1_ptr", "dy2_ptr", "u_ptr", "v_ptr")
    arguments: dict[str, Argument] = dict.fromkeys(pointers, "*bf16")
    arguments |= {f"d{matrix}{i}_ptr": "*fp32" for matrix in "ab" for i in range(3)}
    numbers = ("K", "N0", "N1", "N2", "R", "stride_x", "stride0", "stride1", "stride2")
    arguments |= dict.fromkeys(("M", *numbers, "rank0", "rank1", "rank2"), "i32")
    arguments |= {f"scaling{i}": "fp32" for i in range(3)}
    return Case(
        name=f"matrix_gradients bf16, {block_r} ranks",
        kernel="kernels.triton.riding_adapter_kernels:matrix_gradients_kernel",
        arguments={**arguments, "BLOCK_M": 64, "BLOCK_C": 64, "BLOCK_R": block_r, "STAGES": 3},
        elements=64 * 64,
        bytes=2.0,
        flops=2 * block_r,
        aligned=("M", *numbers),
        targets=NVIDIA,
        options={"enable_fp_fusion": True},
    )


ADAPTER_CASES = (
    block_matrix(8),
    block_matrix(64),
    beside(is_backward=False, block_r=32),
    beside(is_backward=False, block_r=256),
    beside(is_backward=True, block_r=32),
    beside(is_backward=True, block_r=256),
    matrix_gradients(32),
    matrix_gradients(128),
)
