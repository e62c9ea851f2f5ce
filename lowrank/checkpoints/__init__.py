"""Folders of weights: read, quantized, written.

load                a folder -> a frozen Llama in a number format
quantize_folder     a folder -> a folder in 4 or 8 bits
chunked_quantize    a weight quantized a chunk of rows at a time
safetensors_writer  safetensors files, a tensor at a time
sidecar_files       config files and the others that go along with weights
fingerprint         which base a hat belongs to
embedded            the base that comes with the package, in base/
"""
