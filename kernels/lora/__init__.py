"""The LoRA product: a linear and what its adapter adds, with gradients.

lora_linear  linears that share x, each with an adapter
span_linears  the same, with an adapter for each span of rows
straight_through  rounded weights that hold the adapter
dropout      masks drawn from a seed, forward and again backward
"""
