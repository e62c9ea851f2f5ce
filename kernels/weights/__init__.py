"""Quantized weights: their levels, their layouts in memory, and nothing that computes with them.

codebooks            the 16 levels of NF4 and FP4, and the 256 of the 8-bit code of nested maxima
quantized_weight     the tensors that each number format stores: shapes, dtypes, bytes
repack               the order of codes that GPU kernels read
prmt_table           sixteen levels in eight registers of an NVIDIA GPU
linear_with_adapter  a weight, and the matrices of one adapter beside it
"""
