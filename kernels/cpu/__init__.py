"""4-bit and 8-bit weights on a CPU, in C: quantize, dequantize, and products straight from the codes.

native.h     what the C library offers, and how a weight is handed to it
vector.inc   every kernel, once, over vectors of 4, 8 or 16 floats: compiled by avx512.c, avx2.c, neon.c, portable.c;
             it includes weights.inc, products.inc, activations.inc and attend.inc
isa.c        which instruction set is used
formats.c    quantize and dequantize
linear.c     products for few rows, with adapters; linear_dx.c their gradient
tiles.h      the matrix unit; tiles.c the product, tiles_dx.c its gradient
attention.h  causal attention by it; attention.c forward, attention_dx.c its gradients
decode_attention.c   attention of one query a row
rope.c, rmsnorm.c, swiglu.c   what is between the products, and its gradients
blocks.c     all blocks of Llama for one token a row, of what team.h names
pages.c      2 MB pages for large weights
binding      finds the library, and describes weights to it
products     the paths that `dispatch` chooses
attention    what calls attention.c, attention_dx.c and decode_attention.c, and when
blocks       what calls blocks.c

A package that was installed without a C compiler has no library: then plain torch computes, as `binding.absence` says.
"""
