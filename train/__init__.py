"""The training loop.

config          a run as a TOML file; an unknown key is refused. recipes/ has those that come with the package
toml_tables     TOML tables as dataclasses, with errors by key
data            the entries of a run, learned and held out
from_config     builds a run out of its config, and trains it
trainer         one run, from config to adapter
step            one step: batches, gradient, update
batch_schedule  the batches of every step
optim           AdamW, clipping, learning rate; adam_state stores its moments
checkpoint      saves and restores a run, bit for bit
monitor         progress of a run; trackers are TensorBoard and others, report draws the page
plan/           the resources of a run, predicted
parallel/       several processes
pretrain/       training of the embedded base
"""
