"""Llama 2 in plain torch, with Meta's own module names: readable without knowing LoRA or NF4.

config          the shape of a model; the presets
config_json     the shape of a model, read from `params.json` or `config.json`
hf_keys         the keys of `config.json`: read, fixed, harmless
llama           the model
packed_texts    several texts in one row, none of which sees another
loss            the loss of next-token prediction
checkpoint      parameters from Meta's shards, Hugging Face's and bitsandbytes' files, one at a time
weight_files    which files of a folder are its model
foreign_keys    whose the keys are that no Llama has
tensor_file     one file of tensors, memory-mapped
foreign_file    what lies in a file's place by mistake
param_names     Meta's names of parameters and Hugging Face's
rope_layout     the two orders of the rows of wq and wk
meta_checksums  the MD5 sums that come with Meta's weights
tokenizer       texts as ids: SentencePiece, tokenizer.json, the ranks of Llama 3
generate        text, a token at a time
continuous_batch  many texts at once, which come and go between two tokens
completion      a text as it grows, and what it is in the end
forward         the logits behind prompts and behind each further token
sampling        the choice of the next token
logprobs        the probabilities of the tokens that were written
drafts          tokens that the text suggests, several of which are verified in one pass
meta_device     models of shapes alone
static_decode   a decoding step of fixed shapes, which a GPU replays as a CUDA graph
"""
