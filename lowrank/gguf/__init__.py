"""GGUF, llama.cpp's file format.

export  an adapter, or a base, as a GGUF file
writer  the file itself, a tensor at a time
"""
