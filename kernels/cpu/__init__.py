"""4-bit and 8-bit weights on a CPU, in C: quantize, dequantize, and products straight from the codes.

library      loads the C library, and describes weights to it as C structures
linear       quantize, dequantize and products, as `dispatch` calls them
crossover    from how many rows on the next kernel is as fast, by processor
attention    attention in C, and the reasons why a case is left to torch
decode_step  one token a row through all blocks
exact        functions with the same bits on every processor

src/api.h            the functions of the C library, and how a weight is handed to them
src/isa.c, isa.h     which instruction set is used, and the functions that each of them has
src/threads.h        threads of a parallel region
src/quantize.c       quantize and dequantize
src/gemv.c           products for few rows, with adapters; panel_gemm.c for more, panel_gemm_backward.c their gradient
src/rope.c, rms_norm.c, swiglu.c    the operations between the products, and their gradients
src/decode_attention.c              attention of one query a row
src/llama_step.c     all blocks of Llama for a few tokens a row, each row in a cache and an adapter of its own
src/cross_entropy.c  the loss of a row of logits, which become their gradient
src/memory.c         2 MB pages for large weights; what is freed is kept
src/attention_math.h what both kinds of causal attention compute alike
src/simd/vector.inc  every kernel, once, over vectors of 4, 8 or 16 floats: compiled by avx512.c, avx2.c, neon.c and
                     portable.c; it includes weights.inc, products.inc, activations.inc and decode_attention.inc
src/exact/           a training step with the same bits on every processor, once for each set: exact.h has the rules
src/bf16/            dot products of bfloat16 pairs: products in gemv.c, gemm.c and gemm_backward.c, attention in
                     attention.c and attention_backward.c; src/amx/: the same by the matrix unit

A package that was installed without a C compiler has no library: then plain torch computes, as
`library.unavailable_reason` says.
"""
