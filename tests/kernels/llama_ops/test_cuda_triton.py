"""The fused Triton kernels against the plain-torch truth: interpreted, compiled for three targets, on a GPU.

What is compared is in fused_checks.py, which runs in a process of its own: Triton reads TRITON_INTERPRET at import.
"""

from pathlib import Path

import pytest
import torch
from child_process import environment, run_python

pytestmark = pytest.mark.long

CHECKS = Path(__file__).with_name("cuda_checks.py")
KERNELS = pytest.mark.parametrize("kernels", ["rms_norm", "rope", "swiglu", "cross_entropy", "decode_attention"])

COMPILED = """
import re, subprocess, sys, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from lowrank.kernels.triton import cross_entropy, decode_attention, rms_norm, rope, swiglu

target = GPUTarget("cuda", int(sys.argv[1]), 32)
cuobjdump = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"

def build(kernel, num_warps, types, **constants):
    # Pointers are to the dtype of the inputs, but for those in `types`.
    signature = {name: types.get(name, "constexpr" if name in constants else f"*{dtype}") for name in kernel.arg_names}
    options = {"num_warps": num_warps, "enable_fp_fusion": True}
    compiled = compile(ASTSource(kernel, signature, constants), target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        used = subprocess.run([cuobjdump, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    assert re.findall("(?:STACK|LOCAL):([0-9]+)", used) == ["0", "0"], (kernel, dtype, constants, used)  # no spills

wide = dict.fromkeys(("rstd_ptr", "dweight_ptr", "cos_ptr", "sin_ptr", "loss_ptr"), "*fp32") | {"target_ptr": "*i64"}
wide |= dict.fromkeys(("sum_ptr", "total_ptr", "largest_ptr"), "*fp32") | {"mask_ptr": "*i1"}
wide |= dict.fromkeys(("heads0", "heads1"), "i32")
wide |= dict.fromkeys(("rows", "rows_per_program", "count", "S", "heads", "group", "tiles", "splits"), "i32")
wide |= dict.fromkeys(("stride_batch", "stride_head", "stride_mask"), "i32") | {"eps": "fp32", "scale": "fp32"}
for dtype, flags in {"bf16": (False, True), "fp16": (True,), "fp32": (True,)}.items():
    for flag in flags:
        norm = {"D": 8192, "BLOCK_D": 8192}  # the widest Llama 2: what spills, spills here
        build(rms_norm.rms_norm_kernel, 32, wide, HAS_RESIDUAL=flag, **norm)
        build(rms_norm.rms_norm_backward_kernel, 32, wide, HAS_DH=flag, WITH_DWEIGHT=flag, **norm)
        blocks = {"PAIRS": 64, "BLOCK_HEADS": 32, "BLOCK_PAIRS": 64}
        build(rope.rope_kernel, 4, wide, INTERLEAVED=flag, INVERSE=flag, **blocks)
        loss = {"V": 32000, "IGNORED": -100, "BLOCK_V": cross_entropy.BLOCK_V}
        build(cross_entropy.cross_entropy_kernel, 8, wide, WITH_GRADIENT=flag, **loss)
    head = {"HEAD_DIM": 128, "BLOCK_D": 128}
    tile = {"BLOCK_S": decode_attention.BLOCK_S, **head}
    build(decode_attention.decode_attention_kernel, decode_attention.WARPS, wide, **tile)
    build(decode_attention.combine_kernel, 4, wide, BLOCK_SPLITS=16, **head)
    build(swiglu.swiglu_kernel, 4, wide, TILE=swiglu.TILE)
    build(swiglu.swiglu_backward_kernel, 4, wide, TILE=swiglu.TILE)
print("compiled")
"""


def run(*arguments: object, **variables: str) -> str:
    """The output of a Python process of its own."""
    return run_python(*arguments, env=environment(**variables)).stdout.strip()


@KERNELS
def test_the_interpreted_kernels_are_within_the_rule(kernels: str) -> None:
    assert run(CHECKS, kernels, "cpu", TRITON_INTERPRET="1") == "within the rule"


@pytest.mark.parametrize("capability", [80, 90, 100], ids=["sm_80", "sm_90", "sm_100"])
def test_they_compile_without_a_gpu_and_spill_no_register(capability: int, tmp_path: Path) -> None:
    assert run("-c", COMPILED, capability, TRITON_CACHE_DIR=str(tmp_path)) == "compiled"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@KERNELS
def test_on_a_gpu_they_are_within_the_rule(kernels: str) -> None:
    assert run(CHECKS, kernels, "cuda") == "within the rule"
