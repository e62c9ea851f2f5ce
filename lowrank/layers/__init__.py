"""Linear layers with quantized weights and adapters.

quant_linear       a linear whose weight is quantized
lora               a frozen linear with adapters
dora               the direction and the magnitude of W, learned apart
adapter_selection  the adapters that a call adds: a mix, a mix a row, a context's own
requantized        4-bit weights that hold an adapter
fused_projections  linears that share x, computed by one plan
adapter_rows       rows of the embedding and the output head that come with an adapter
dropout_seed       which mask a dropout draws
recompute          outputs that are computed again instead of kept
quantized_cache    keys and values of the past in 8 or 4 bits
block_weights      the weights of all blocks, for a call that computes them at once
cpu_decode         all blocks of a model for one token, or a few of one text, in one call
cpu_rows           those for a token of each of several texts, in adapters of their own
cpu_blocks         what both of them give to the library, and when
model_snapshot     whether a description of a model still holds
gpu_decode         those for one token on a GPU, in five kernels a block
exact_head         the output head for a few rows, each with the bits that it has alone
prefix_cache       what prompts begin with alike, read once
kept_parts         keys and values of parts of prompts, up to a limit in bytes
prefix_folder      the same in files, for processes to come
model_state        whether keys and values still hold, and a hash of what they depend on
pass_costs         how many tokens of a text are worth a pass
"""
