"""Kernels in CUDA C for NVIDIA GPUs, where what they do has no expression in Triton; compiled on first use.

nvrtc        the compiler, as a library that comes with torch: source to machine code
pairs        what the kernels of the table of pairs share on the host; in CUDA C they share `pairs.cuh`
gemv         y = x W^T for one to four rows of x, by the table; its kernel is `gemv.cu`
decode_step  the products of a step through all blocks, by the table: `step.cuh`, `qkv.cu`, `gate_up.cu`, `residual.cu`
"""
