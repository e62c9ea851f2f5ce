"""The static cost of the kernels of a decode step: of a block of Llama 2 7B in bfloat16 and nf4-dq, for one token."""

from lowrank.kernels.cuda import decode_step, pairs

from .case import ALL_NVIDIA, Argument, Case

BYTES = (4 + 8 / 64 + 32 / (256 * 64)) / 8
ROWS = 64  # of W, a program's tile: `gemv.linear_tile`
OPTIONS = {"num_warps": 2, "enable_fp_fusion": False}


def weight(number: str = "") -> dict[str, Argument]:
    """The stored tensors of one weight, as the kernels name them."""
    kinds = (("codes", "*u8"), ("absmax", "*i32"), ("nested", "*fp32"), ("offset", "*fp32"))
    return {f"{name}{number}_ptr": kind for name, kind in kinds}


def matrices(letter: str, numbers: tuple[str, ...], rank: int) -> dict[str, Argument]:
    """lora_A, or lora_B with its scaling, of each linear."""
    given: dict[str, Argument] = {}
    for number in numbers:
        given |= {f"{letter}{number}_ptr": "*fp32", f"rank{number}": "i32"}
        if letter == "b":
            given[f"scaling{number}"] = "fp32"
    return given | {"RANK": rank, "CHUNK": min(64, 2048 // max(rank, 1))}


def product(name: str, splits: int, rank: int, arguments: dict[str, Argument]) -> Case:
    """One row of x, whose sums `splits` programs share."""
    given: dict[str, Argument] = {"parts_ptr": "*fp32", "arrived_ptr": "*i32", "x_ptr": "*bf16", "squares_ptr": "*fp32"}
    given |= {"levels_ptr": "*bf16", "table_ptr": "*i32", "dynamic8_ptr": "*fp32", "u_ptr": "*fp32", "M": 1}
    given |= {**dict.fromkeys(("N", "K", "groups"), "i32"), "eps": "fp32", "TILES": 64, "SPLITS": splits}
    given |= {"BLOCK_M": 8, "BLOCK_N": ROWS, "BLOCKSIZE": 64, "GROUP": 4, "NESTED_BLOCKSIZE": 256, "STAGES": 3}
    return Case(
        name=f"{name} M1 bf16 nf4-dq{f' rank {rank}' if rank else ''}",
        kernel=f"kernels.triton.decode_step_kernels:{name}_kernel",
        arguments={**given, "ASSEMBLY": True, **arguments},
        elements=256 * ROWS,
        bytes=BYTES,
        flops=16,
        aligned=("N", "N0", "N1", "K"),
        targets=ALL_NVIDIA,
        options=OPTIONS,
    )


def qkv(rank: int) -> Case:
    """Three weights of 4096 x 4096."""
    weights = weight("0") | weight("1") | weight("2")
    adapter = matrices("b", ("0", "1", "2"), rank)
    return product("qkv", 4, rank, {"y_ptr": "*bf16", **weights, "N0": "i32", "N1": "i32", **adapter})


def gate_up(rank: int) -> Case:
    """Two weights of 11008 x 4096, a tile of which is half of each."""
    following: dict[str, Argument] = {"u_next_ptr": "*fp32", "a_next_ptr": "*fp32", "rank_next": "i32"}
    adapter = matrices("b", ("0", "1"), rank) | following | {"RANK_NEXT": rank}
    return product("gate_up", 2, rank, {"y_ptr": "*bf16", **weight("0"), **weight("1"), **adapter})


def residual(rank: int) -> Case:
    """A weight of 4096 x 4096, or of 4096 x 11008, and the norm behind it."""
    pointers: dict[str, Argument] = dict.fromkeys(("h_ptr", "x_next_ptr", "residual_ptr", "weight_ptr"), "*bf16")
    given = {**pointers, **weight(), "u_tiles": "i32", "b_ptr": "*fp32", "rank": "i32", "scaling": "fp32"}
    given |= {**matrices("a", ("0", "1", "2"), rank), "u_next_ptr": "*fp32", "COUNT_NEXT": 3, "RANK_NEXT": rank}
    return product("residual", 16, rank, given)


def attention(rank: int) -> Case:
    """A tile of 64 positions of one head: an element is a number of k or of v."""
    given: dict[str, Argument] = dict.fromkeys(("y_ptr", "qkv_ptr", "k_ptr", "v_ptr"), "*bf16")
    given |= dict.fromkeys(("sum_ptr", "total_ptr", "largest_ptr", "cos_ptr", "sin_ptr", "u_ptr", "a_ptr"), "*fp32")
    given |= {"arrived_ptr": "*i32", "position_ptr": "*i64", "padding_ptr": "*i64", "scale": "fp32"}
    given |= dict.fromkeys(("heads", "kv_heads", "stride_batch", "stride_head", "rank"), "i32")
    given |= {"RANK": rank, "SPLITS": 16, "HEAD_DIM": 128, "BLOCK_D": 128, "BLOCK_S": 64, "INTERLEAVED": True}
    return Case(
        name=f"step_attention bf16{f' rank {rank}' if rank else ''}",
        kernel="kernels.triton.decode_step_attention:step_attention_kernel",
        arguments=given,
        elements=2 * 64 * 128,
        bytes=2.0,
        aligned=("heads", "kv_heads", "stride_batch", "stride_head"),
        targets=ALL_NVIDIA,
        options={"num_warps": 8, "enable_fp_fusion": False},
    )


def by_pairs(name: str, m: int, rank: int) -> Case:
    """The same products by the table of pairs, in CUDA C, for M rows; K is 4096."""
    linears = 2 if name == "gate_up" else 1
    return Case(
        name=f"{name}_pairs M{m} bf16 nf4-dq{f' rank {rank}' if rank else ''}",
        kernel=f"kernels.cuda.decode_step:{name}_pairs_kernel",
        arguments=dict(decode_step.constants(m, 64, 256, rank)),
        elements=pairs.TILE * pairs.GROUP * pairs.THREADS // 32,
        bytes=BYTES,
        flops=16,
        targets=ALL_NVIDIA,
        options={"shared": decode_step.shared_bytes(m, 4096, linears, rank)},
    )


PRODUCTS = ("qkv", "gate_up", "residual")
STEP_CASES = (
    *(by_pairs(name, m, rank) for m, rank in ((1, 0), (1, 8), (2, 0), (4, 0), (4, 8)) for name in PRODUCTS),
    *(make(rank) for rank in (0, 8) for make in (qkv, gate_up, residual, attention)),
)
