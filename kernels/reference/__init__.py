"""The plain-torch truth that every faster path is compared with.

weights      quantize, dequantize, and products with quantized weights
codes        the codes of a quantized weight, how often each is used, and what is lost
llama_ops    the operations of Llama between its products, forward and backward
decode_step  one token through all blocks
"""
