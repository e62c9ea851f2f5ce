"""The resources of a run, before any work is done.

plan    parameters, bytes, tokens, steps, time
memory  the peak of memory, part by part
flops   multiplications, and memory in use
"""
