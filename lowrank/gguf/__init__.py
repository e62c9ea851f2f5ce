"""GGUF, llama.cpp's file format.

header           values and places of tensors of a file, every size checked
read             a file as a checkpoint
tokenizer_files  its tokenizer, as the files of a folder
names            llama.cpp's names of tensors
export           an adapter, or a base, as a GGUF file
writer           the file itself, a tensor at a time
"""
