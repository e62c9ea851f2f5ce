"""The training loop.

config      a run as a TOML file; every key is known or refused
optim       AdamW, clipping, the learning rate
loop        one run, from config to hat
checkpoint  what a run needs to go on, bit for bit
pretrain    how the embedded base was made; pretrain_plot draws its log
"""
