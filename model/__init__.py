"""Llama 2 in plain torch, with Meta's own module names: readable without knowing LoRA or NF4.

config      the shape of a model, read from `params.json` or `config.json`; the presets
llama       the model
checkpoint  tensors out of Meta's shards, Hugging Face's and bitsandbytes' safetensors, one at a time
tokenizer   SentencePiece, as Meta uses it
generate    sampling, a token at a time
decode      the step of fixed shapes that generate takes on a GPU, as a CUDA graph
"""
