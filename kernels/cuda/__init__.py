"""Kernels in CUDA C for NVIDIA GPUs, where what they do has no expression in Triton; compiled on first use.

nvrtc    the compiler, as a library that comes with torch: source to machine code
gemv     y = x W^T for one to four rows of x; its kernel is `gemv.cu`
"""
