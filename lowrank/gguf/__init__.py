"""GGUF, llama.cpp's file format.

header           values and places of tensors of a file, every size checked
read             a file as a checkpoint
tokenizer_files  its tokenizer, as the files of a folder
tokenizer_writer a tokenizer as the values of a file
names            llama.cpp's names of tensors
rope_factors     scaled RoPE as a tensor
export           an adapter, or a base, as a GGUF file
writer           the file itself, a tensor at a time
"""
