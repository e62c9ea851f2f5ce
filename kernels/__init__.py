"""The 4-bit and 8-bit number formats, and every path that computes with them.

codebook        the levels: 16 of NF4 and FP4, 256 of the 8-bit code for block maxima
formats         a quantized weight in memory: `Blockwise4bit`, `RowwiseInt8`
reference       the plain-torch truth that every faster path is held to
dequantize      Triton: 4-bit weights back to 16 or 32 bits in one launch
repack          the order of bytes that the decode kernels read, and back
register_table  sixteen levels in eight registers
lookup          Triton: packed codes to levels, in assembly, with its plain twin
decode          y = x W^T and dX = dY W for few rows; the kernels are in `decode_kernels`
ops             the only dispatcher: device, dtype and shape choose the path; autograd lives here
"""
