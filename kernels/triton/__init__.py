"""Kernels in Triton, for NVIDIA GPUs; Linux only.

quantize, dequantize   4-bit weights
gemv, gemv_kernels     products for few rows
gemm, gemm_kernels     products for a middle number of rows
int8_linear            products with 8-bit rows
lookup                 packed codes to levels inside a kernel
launch                 how gemv and gemm are started
rms_norm, rope, swiglu, decode_attention, cross_entropy
"""
