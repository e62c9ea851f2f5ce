"""The 4-bit and 8-bit number formats, and every path that computes with them.

codebook        the levels: 16 of NF4 and FP4, 256 of the 8-bit code for block maxima
formats         a quantized weight in memory: `Blockwise4bit`, `Repacked4bit`, `RowwiseInt8`
reference       the plain-torch truth that every faster path is held to
quantize        Triton: to 4 bits and the nested statistics, with the bytes of the reference
dequantize      Triton: 4-bit weights back to 16 or 32 bits in one launch
int8            Triton: the product with int8 rows, forward and backward
repack          the order of bytes that the decode kernels read, and back
register_table  sixteen levels in eight registers
lookup          Triton: packed codes to levels, in assembly, with its plain twin
decode          y = x W^T and dX = dY W for few rows; the kernels are in `decode_kernels`
fused_linear    the same for a middle number of rows; the kernels are in `fused_kernels`
launch          what both do to start one
training        products with many rows: W into scratch once, the vendor's GEMM, and an adapter that rides in it
scratch         the memory in which W stands for the length of one product
dispatch        the table of paths: device, dtype, shape and layout choose, and a reason is given
crossover       from which numbers of rows on the next path is the faster one, by GPU
explain         what the table chooses, read out
run             runs what the table chooses, without gradients
library         the operators that torch.compile sees
ops             the one door; autograd lives here

fused                 what Llama does between its matrix products, one operation each; `fused_ops` as operators,
                      `fused_reference` their plain-torch truth; Triton in `rms_norm`, `rope`, `swiglu`,
                      `decode_attention`
linear_cross_entropy  the output head with its loss, in chunks of rows; Triton in `cross_entropy`
"""
