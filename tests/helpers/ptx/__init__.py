"""An emulator of compiled Triton kernels: PTX for sm_80 and sm_90, run on numpy, all threads of a block in step.

program.py       the text of a kernel as instructions with typed registers
memory.py        global and shared memory: bounds, alignment, what was never written, races
block.py         one block of threads: registers, branches, barriers
arithmetic.py    instructions on registers: integers, floats, conversions, shuffles
transfers.py     instructions that move memory: loads, stores, asynchronous copies, ldmatrix
tensor_cores.py  mma and wgmma
driver.py        a driver for Triton that compiles for a GPU and launches here
cuda_c.py        the same for kernels in CUDA C
run_checks.py    a script of checks, run with both

A kernel that is right here may still be wrong on a GPU: ptxas, the approximate functions (exact here) and the sums of
the tensor cores (rounded once here, cut off there) are not modelled.
"""
