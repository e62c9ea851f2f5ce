"""The training loop.

config      a run as a TOML file; every key is known or refused. recipes/ holds those that come with it
plan        what a run will take: memory, costs
schedule    which batches belong to which step
step        one step: batches, gradient, update
optim       AdamW, clipping, the learning rate; states keeps its moments
loop        one run, from config to hat
checkpoint  what a run needs to go on, bit for bit
team        the processes that train together; distributed where there are several, heartbeat whether all live
watch       what a run shows of itself: trackers, report
pretrain    how the embedded base was made; pretrain_plot draws its log
"""
