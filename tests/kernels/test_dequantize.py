"""The Triton kernel against the plain-torch truth, bit for bit: interpreted, compiled for three targets, on a GPU.

Triton reads TRITON_INTERPRET when a kernel is decorated, so each of the two runs in a process of its own.
"""

import itertools
import os
import subprocess
import sys

import pytest
import torch

from lowrank.kernels import ops, reference
from lowrank.kernels.formats import Blockwise4bit

INTERPRETED = """
import itertools, numpy, torch, triton.language as tl
from triton.runtime import interpreter
from lowrank.kernels import reference
from lowrank.kernels.dequantize import dequantize_4bit

# Triton 3.9's interpreter cuts float32 off where it makes a bfloat16; a GPU rounds to even, as torch does.
convert = interpreter._convert_float
def rounded(data, source, target, mode):
    if (source, target) == (tl.float32, tl.bfloat16):
        return torch.from_numpy(numpy.ascontiguousarray(data)).bfloat16().view(torch.int16).numpy()
    return convert(data, source, target, mode)
interpreter._convert_float = rounded

empty = torch.empty
torch.empty = lambda *size, **kw: empty(*size, **kw).fill_(float("nan"))  # an element that is not written is seen

generator = torch.Generator().manual_seed(0)
shapes = [(1, 1), (3, 5), (5, 77), (64, 64), (7, 1000), (130, 129)]
for shape, format, blocksize, double, dtype in itertools.product(
    shapes, ("nf4", "fp4"), (32, 64, 128, 4096), (False, True), (torch.float32, torch.bfloat16, torch.float16)
):
    w = torch.randn(shape, generator=generator)
    w.view(-1)[: blocksize // 2] = 0
    quantized = reference.quantize_4bit(w, format, blocksize, double)
    ours, truth = dequantize_4bit(quantized, dtype), reference.dequantize_4bit(quantized, dtype)
    assert torch.equal(ours.view(torch.uint8), truth.view(torch.uint8)), (shape, format, blocksize, double, dtype)
print("equal")
"""

COMPILED = """
import itertools, sys
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from lowrank.kernels.dequantize import TILE, dequantize_4bit_kernel

target = GPUTarget("cuda", int(sys.argv[1]), 32)
for output, nested in itertools.product(("fp32", "bf16", "fp16"), (0, 256)):
    statistics = "*u8" if nested else "*fp32"
    signature = {"out_ptr": f"*{output}", "codes_ptr": "*u8", "codebook_ptr": "*fp32", "absmax_ptr": statistics}
    signature |= dict.fromkeys(("dynamic8_ptr", "nested_absmax_ptr", "offset_ptr"), "*fp32") | {"count": "i32"}
    constants = {"BLOCKSIZE": 64, "NESTED_BLOCKSIZE": nested, "TILE": TILE}
    signature |= dict.fromkeys(constants, "constexpr")
    source = ASTSource(dequantize_4bit_kernel, signature, constants)
    kernel = compile(source, target=target, options={"enable_fp_fusion": False})
    assert kernel.asm["cubin"]
    assert "fma.rn.f32" not in kernel.asm["ptx"]  # it would round once where the reference rounds twice
print("compiled")
"""


def run(code, *arguments, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        cwd="/",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_interpreted_kernel_is_the_reference_bit_for_bit():
    assert run(INTERPRETED, TRITON_INTERPRET="1") == "equal"


@pytest.mark.parametrize("capability", [80, 90, 100], ids=["sm_80", "sm_90", "sm_100"])
def test_it_compiles_without_a_gpu_and_without_a_fused_multiply_add(capability, tmp_path):
    assert run(COMPILED, capability, TRITON_CACHE_DIR=str(tmp_path)) == "compiled"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_it_is_the_reference_bit_for_bit():
    for shape, format in itertools.product([(1, 1), (5, 77), (4096, 11008)], ("nf4", "nf4-dq", "fp4", "fp4-dq")):
        quantized = ops.quantize(torch.randn(shape, generator=torch.Generator().manual_seed(0)), format)
        assert isinstance(quantized, Blockwise4bit)
        on_gpu = quantized.with_tensors({name: tensor.cuda() for name, tensor in quantized.tensors().items()})
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            ours, truth = ops.dequantize(on_gpu, dtype).cpu(), reference.dequantize_4bit(quantized, dtype)
            assert torch.equal(ours.view(torch.uint8), truth.view(torch.uint8)), (shape, format, dtype)
