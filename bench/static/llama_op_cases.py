"""The kernels between Llama's matrix products, at the sizes of Llama 2 7B: an element is a number that comes in."""

from .case import Argument, Case

D, HEAD_DIM, HEADS, VOCABULARY = 4096, 128, 32, 32000
TILE, BLOCK_V, BLOCK_S = 1024, 4096, 64  # of kernels.swiglu, .cross_entropy and .decode_attention
FUSION = {"enable_fp_fusion": True}


def rms_norm(residual: bool) -> Case:
    """A row of 4096; with a residual, its sum is normed and written as well."""
    pointers = dict.fromkeys(("y_ptr", "h_ptr", "x_ptr", "residual_ptr", "weight_ptr"), "*bf16") | {"rstd_ptr": "*fp32"}
    return Case(
        name=f"{'add_rms_norm' if residual else 'rms_norm'} bf16",
        kernel="kernels.triton.rms_norm:rms_norm_kernel",
        arguments={**pointers, "eps": "fp32", "D": D, "HAS_RESIDUAL": residual, "BLOCK_D": D},
        elements=D,
        bytes=8.0 if residual else 4.0,
        options={"num_warps": D // 256, **FUSION},
    )


def rms_norm_backward(residual: bool) -> Case:
    """With the gradient of the other way, and that of the weight."""
    pointers = dict.fromkeys(("dx_ptr", "dy_ptr", "dh_ptr", "h_ptr", "weight_ptr"), "*bf16")
    pointers |= dict.fromkeys(("dweight_ptr", "rstd_ptr"), "*fp32") | dict.fromkeys(("rows", "rows_per_program"), "i32")
    return Case(
        name=f"{'add_rms_norm' if residual else 'rms_norm'} backward bf16",
        kernel="kernels.triton.rms_norm:rms_norm_backward_kernel",
        arguments={**pointers, "D": D, "HAS_DH": residual, "WITH_DWEIGHT": True, "BLOCK_D": D},
        elements=D,
        bytes=8.0 if residual else 6.0,
        options={"num_warps": D // 256, **FUSION},
    )


def rope(interleaved: bool) -> Case:
    """32 heads of q, or of k, of a token."""
    pointers = dict.fromkeys(("out0_ptr", "out1_ptr", "x0_ptr", "x1_ptr"), "*bf16")
    pointers |= {"cos_ptr": "*fp32", "sin_ptr": "*fp32", "heads0": "i32", "heads1": "i32"}
    pairs = HEAD_DIM // 2
    constants: dict[str, Argument] = {"PAIRS": pairs, "INTERLEAVED": interleaved, "INVERSE": False}
    return Case(
        name=f"rope {'interleaved' if interleaved else 'half'} bf16",
        kernel="kernels.triton.rope:rope_kernel",
        arguments={**pointers, **constants, "BLOCK_HEADS": HEADS, "BLOCK_PAIRS": pairs},
        elements=HEADS * HEAD_DIM,
        bytes=4.0,
        aligned=("heads0", "heads1"),
        options=FUSION,
    )


def swiglu(backward: bool) -> Case:
    names = ("dgate_ptr", "dup_ptr", "dy_ptr", "gate_ptr", "up_ptr") if backward else ("y_ptr", "gate_ptr", "up_ptr")
    return Case(
        name=f"swiglu {'backward ' if backward else ''}bf16",
        kernel=f"kernels.triton.swiglu:swiglu_{'backward_' if backward else ''}kernel",
        arguments={**dict.fromkeys(names, "*bf16"), "count": "i32", "TILE": TILE},
        elements=TILE,
        bytes=2.0 * len(names),
        aligned=("count",),
        options=FUSION,
    )


def cross_entropy(gradient: bool) -> Case:
    """A row of 32,000 logits, in float32 inside; its second sweep reads the cache."""
    pointers = {"loss_ptr": "*fp32", "logits_ptr": "*bf16", "target_ptr": "*i64"}
    constants: dict[str, Argument] = {"V": VOCABULARY, "IGNORED": -100, "WITH_GRADIENT": gradient, "BLOCK_V": BLOCK_V}
    return Case(
        name=f"cross_entropy {'with gradient ' if gradient else ''}bf16",
        kernel="kernels.triton.cross_entropy:cross_entropy_kernel",
        arguments={**pointers, **constants},
        elements=BLOCK_V,
        bytes=4.0 if gradient else 2.0,
        options={"num_warps": 8, **FUSION},
    )


def decode_attention() -> Case:
    """A tile of 64 positions of one head: an element is a number of k or of v."""
    pointers = dict.fromkeys(("sum_ptr", "total_ptr", "largest_ptr"), "*fp32")
    pointers |= dict.fromkeys(("q_ptr", "k_ptr", "v_ptr"), "*bf16") | {"mask_ptr": "*i1", "scale": "fp32"}
    sizes = ("S", "heads", "group", "stride_batch", "stride_head", "stride_mask", "tiles")
    constants: dict[str, Argument] = {"HEAD_DIM": HEAD_DIM, "BLOCK_D": HEAD_DIM, "BLOCK_S": BLOCK_S}
    return Case(
        name="decode_attention bf16",
        kernel="kernels.triton.decode_attention:decode_attention_kernel",
        arguments={**pointers, **dict.fromkeys(sizes, "i32"), **constants},
        elements=2 * BLOCK_S * HEAD_DIM,
        bytes=2.0,
        aligned=("heads", "stride_batch", "stride_head"),
        options={"num_warps": 8, "enable_fp_fusion": False},
    )


def combine() -> Case:
    """The parts of nine splits of a head."""
    pointers = {"y_ptr": "*bf16", **dict.fromkeys(("sum_ptr", "total_ptr", "largest_ptr"), "*fp32")}
    constants: dict[str, Argument] = {"HEAD_DIM": HEAD_DIM, "BLOCK_SPLITS": 16, "BLOCK_D": HEAD_DIM}
    return Case(
        name="decode_attention combine bf16",
        kernel="kernels.triton.decode_attention:combine_kernel",
        arguments={**pointers, "splits": "i32", **constants},
        elements=9 * HEAD_DIM,
        bytes=4.0,
        options={"enable_fp_fusion": False},
    )


FUSED_CASES = (
    rms_norm(residual=False),
    rms_norm(residual=True),
    rms_norm_backward(residual=False),
    rms_norm_backward(residual=True),
    rope(interleaved=True),
    rope(interleaved=False),
    swiglu(backward=False),
    swiglu(backward=True),
    cross_entropy(gradient=False),
    cross_entropy(gradient=True),
    decode_attention(),
    combine(),
)
