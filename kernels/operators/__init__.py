"""Operators `torch.ops.lowrank.*`: what torch.compile and CUDA graphs see.

register   makes a function an operator
quantized  quantize, dequantize, linear
llama_ops  the operations of Llama between its products
"""
