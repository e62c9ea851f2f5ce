"""The LoRA product: a linear and what its adapter adds, with gradients.

lora_linear  linears that share x, each with an adapter
dropout      masks drawn from a seed, forward and again backward
"""
