"""Static costs of the Triton kernels, without a GPU.

cost           compiles and counts
cases, case    what is compiled
llama_op_cases the operations between products
"""
