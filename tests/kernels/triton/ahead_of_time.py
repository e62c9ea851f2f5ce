"""Compiles kernels for one target on a machine without a GPU: `python ahead_of_time.py CAPABILITY`.

Run by `test_compiled.py` in a process of its own, in which TRITON_INTERPRET is not set. Exits with an error if a kernel
does not compile, or if its arithmetic is not the reference's. What it costs is a matter of the bench.
"""

import sys
from typing import Any

from triton import JITFunction
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from lowrank.kernels.triton import dequantize, int8_linear, quantize

TARGET = GPUTarget("cuda", int(sys.argv[1]), 32)


def compiled(kernel: JITFunction[Any], types: dict[str, str], constants: dict[str, int], **options: Any) -> str:
    """The PTX of a kernel. `types` names its arguments in order, each a multiple of 16 as those of a Llama are."""
    aligned = {(place,): [["tt.divisibility", 16]] for place in range(len(types))}
    signature = types | dict.fromkeys(constants, "constexpr")
    built = compile(ASTSource(kernel, signature, constants, aligned), target=TARGET, options=options)
    assert built.asm["cubin"]
    ptx: str = built.asm["ptx"]
    return ptx


def pointers(**types: str) -> dict[str, str]:
    return {f"{name}_ptr": f"*{type}" for name, type in types.items()}


for output, nested, contiguous in (("bf16", 256, True), ("bf16", 256, False), ("fp16", 0, False), ("fp32", 256, True)):
    types = pointers(out=output, codes="u8", codebook="fp32", absmax="u8" if nested else "fp32")
    types |= pointers(dynamic8="fp32", nested_absmax="fp32", offset="fp32")
    types |= {"count": "i32", "columns": "i32", "row_stride": "i32"}
    constants = {"BLOCKSIZE": 64, "NESTED_BLOCKSIZE": nested, "TILE": dequantize.TILE}
    constants |= {"CONTIGUOUS": contiguous, "WHOLE_BLOCKS": nested > 0}
    ptx = compiled(dequantize.dequantize_4bit_kernel, types, constants, enable_fp_fusion=False)
    assert "fma.rn.f32" not in ptx, "it would round once where the reference rounds twice"

for input, size, bits in (("bf16", 64, 4), ("fp16", 128, 4), ("fp32", 4096, 4), ("fp32", 256, 8)):
    types = pointers(codes="u8", absmax="fp32", w=input, offset="fp32", midpoints="fp32", order="u8") | {"count": "i32"}
    ptx = compiled(quantize.quantize_kernel, types, {"BLOCKSIZE": size, "BITS": bits, "TILE": quantize.TILE})
    assert "div.full" not in ptx and "div.approx" not in ptx and ".ftz" not in ptx, "not IEEE's division"

for dtype, forward in (("bf16", True), ("bf16", False), ("fp16", True), ("fp32", False)):
    types = pointers(y=dtype, x=dtype, codes="i8", scale="fp32")
    types |= dict.fromkeys(("rows", "outer", "inner", "outer_stride", "inner_stride"), "i32")
    if forward:
        del types["inner_stride"]  # 1, which Triton compiles in
    constants = {"inner_stride": 1} if forward else {}
    constants |= {"SCALE_OF_OUTER": forward, "BLOCK_M": int8_linear.BLOCK_M}
    constants |= {"BLOCK_OUTER": int8_linear.BLOCK_OUTER, "BLOCK_INNER": int8_linear.BLOCK_INNER}
    compiled(int8_linear.int8_product_kernel, types, constants)
