"""The plain-torch truth that every faster path is compared with.

weights    quantize, dequantize, and products with quantized weights
llama_ops  the operations of Llama between its products, forward and backward
"""
