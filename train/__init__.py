"""The training loop.

config          a run as a TOML file; an unknown key is refused. recipes/ has those that come with the package
config_tables   its tables, with every default
config_rules    the values that its keys may have
notes           settings that are allowed and hardly meant
toml_tables     TOML tables as dataclasses, with errors by key
data            the entries of a run, learned and held out
from_config     builds a run out of its config, and trains it
trainer         one run: set up, then trained; assemble makes its parts, prepared_model the state that it trains in
step            one step: batches, gradient, update
preference      DPO: a loss of pairs of answers
batch_schedule  the batches of every step
optim           AdamW, clipping, learning rate; adam_state stores its moments
merge_aware     the rounded weights of a hat that is to be merged
checkpoint      saves and restores a run, bit for bit
monitor         progress of a run; trackers are TensorBoard and others, report draws the page
exact/          a step with the same bits on every processor
resume/         goes on: the folder's lock, what may change, signals, hats of checkpoints
influence/      the influence of each document of a run on a test document
sweep/          many hats at once on one base
plan/           the resources of a run, predicted
parallel/       several processes
pretrain/       training of the embedded base
"""
