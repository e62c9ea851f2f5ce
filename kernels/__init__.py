"""The 4-bit and 8-bit number formats, and every path that computes with them.

ops        quantize, dequantize and linear, with gradients: the one door
exact      what a training step multiplies and computes, with the same bits on every processor
lora       the LoRA product: linears that share x, and what their adapters add
llama_ops  the operations of Llama between its products, and the loss
operators  `torch.ops.lowrank.*`, which torch.compile sees
dispatch   the table that chooses a kernel by shape, dtype, device and layout, and says why
triton     kernels for NVIDIA GPUs
cpu        kernels in C
reference  the plain-torch truth that every kernel is compared with
weights    levels, codes and layouts of quantized weights

An import goes down this list only; `dispatch` stands below `operators`.
"""
