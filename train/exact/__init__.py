"""Training with the same bits on every processor: `run.numerics = "exact"`.

llama      Llama's forward pass by `kernels.exact`, over the modules of a model, and its loss
optim      AdamW, and the clipping of one process

Four hooks lead here: `new_objective`, `new_optimizer` and `single_process` of `train.assemble`, and `check_numerics` of
`train.config_rules`, which refuses what would not be exact. docs/exact.md says how it works and what it costs.
"""
