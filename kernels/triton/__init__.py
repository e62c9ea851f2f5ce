"""Kernels in Triton, for NVIDIA GPUs; Linux only.

quantize, dequantize   4-bit weights
gemv, gemv_kernels     products for few rows
partial_sums           what those share with a decode step: the sum over a part of K, and who adds the parts
decode_step, decode_step_attention   a token through all blocks
decode_step_products, decode_step_kernels, decode_step_tiles   its products, where there is no table of pairs
adamw                  the update of all parameters, and the norm of their gradients
gemm, gemm_kernels     products for a middle number of rows
int8_linear            products with 8-bit rows
lookup                 packed codes to levels inside a kernel
launch                 how gemv and gemm are started
rms_norm, rope, swiglu, decode_attention, cross_entropy
"""
