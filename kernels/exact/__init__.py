"""Products and operations of a training step with the same bits on every processor, and their gradients.

linears    linears that share their input, each with an adapter or none
llama_ops  norm, rotary positions, SwiGLU, attention, and the loss of the output head

The C functions that they call are in `kernels.cpu.exact`; docs/exact.md has the rules. Between them torch only moves
numbers, or does one addition or multiplication, which IEEE 754 rounds alike everywhere. All in float32, on a CPU.
"""
