"""Training of the embedded base from nothing.

run   the run itself: python -m lowrank.train.pretrain.run
plot  its curve
"""
