"""The choice of a kernel by operation, shape, dtype, device and layout: one table.

Why it exists: a product with a 4-bit weight has no single fastest kernel. For one row of x the codes are read once and
W is never written; from some number of rows on it is faster to dequantize W and call the vendor's GEMM; and that
number depends on the device, the instruction set and the dtype. The alternative is an `if` at every call site
(quantize, forward, dX, the LoRA product, the memory plan), each with its own idea of what a kernel accepts. Here a
kernel is a row with rules. A rule returns the reason why the kernel does not take a case, and the first row without a
reason is used. `--explain`, the bench and the memory plan read the same rows, so that they state what runs. The cost:
Python builds a `Case` and looks it up for every product, so decoding through all blocks asks once a model and not once
a token; functions are named by strings, because Triton exists on Linux only (a test imports each of them); and a
crossover that was measured on one processor can be wrong on another, so they are stored by device.

table         the rows, and the rules for which a row is passed over
crossover     from how many rows on the next kernel is as fast, by device
run           runs what the table chooses
explain       reads the table out for a case
dequant_gemm  W dequantized once into scratch, and the vendor's product
scratch       the memory of that W
"""
