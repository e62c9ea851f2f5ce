"""Which kernel computes what: one table, chosen by shape, dtype, device and layout.

table         the rows, and the rules for which a row is passed over
crossover     from how many rows on the next kernel is as fast, by device
run           runs what the table chooses
explain       reads the table out for a case
dequant_gemm  W dequantized once into scratch, and the vendor's product
scratch       the memory of that W
"""
