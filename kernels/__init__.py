"""The 4-bit and 8-bit number formats, and every path that computes with them.

codebook    the levels: 16 of NF4 and FP4, 256 of the 8-bit code for block maxima
formats     a quantized weight in memory: `Blockwise4bit`, `RowwiseInt8`
reference   the plain-torch truth that every faster path is held to
dequantize  Triton: 4-bit weights back to 16 or 32 bits in one launch
ops         the only dispatcher: device, dtype and shape choose the path; autograd lives here

fused                 what Llama does between its matrix products, one operation each; `fused_ops` as operators,
                      `fused_reference` their plain-torch truth; Triton in `rms_norm`, `rope`, `swiglu`,
                      `decode_attention`
linear_cross_entropy  the output head with its loss, in chunks of rows; Triton in `cross_entropy`
"""
