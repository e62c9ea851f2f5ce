"""Bases: loaded, quantized, written.

load                a folder -> a frozen Llama in a number format
placement           tensors in memory of their own, or where they are in a file
head                the output head: its formats, and the layer that holds it
quantize_folder     a folder -> a folder in 4 or 8 bits
chunked_quantize    a weight quantized a chunk of rows at a time
stored_weight       a quantized weight as bitsandbytes' tensors
safetensors_writer  safetensors files, planned from shapes and written a tensor at a time
pth_writer          a .pth file, a tensor at a time
config_files        config.json and params.json
sidecar_files       the list of files that go along with weights: tokenizer, licence, chat template
fingerprint         the base an adapter belongs to, and the record written beside it
open_base           a base by its path: embedded, a folder, a GGUF file
model_shape         the shape of a Llama by its name, its folder or its config alone
embedded            the base that comes with the package, in base/
"""
