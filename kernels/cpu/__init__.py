"""4-bit and 8-bit weights on a CPU, in C: quantize, dequantize, and products straight from the codes.

native.h     what the C library offers, and how a weight is handed to it
vector.inc   every kernel, once, over vectors of 4, 8 or 16 floats: compiled by avx512.c, avx2.c, neon.c, portable.c
attend.inc   attention of one query, in the same way: vector.inc includes it
formats.c    quantize and dequantize
linear.c     products for few rows
rope.c       rotary positions
rmsnorm.c    RMSNorm, of a sum too, and its gradients
swiglu.c     SwiGLU and its gradients
pages.c      2 MB pages for large weights
tiles.h      the matrix unit; tiles.c the product, tiles_dx.c its gradient
attention.h  causal attention by it; attention.c forward, attention_dx.c its gradients
decode_attention.c   attention of one query a row
isa.c        which instruction set is used
binding      finds the library, and describes weights to it
products     the paths that `dispatch` chooses
attention    what calls attention.c, attention_dx.c and decode_attention.c, and when

A package that was installed without a C compiler has no library: then plain torch computes, as `binding.absence` says.
"""
