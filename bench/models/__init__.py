"""Whole models, ours and the peers.

train, generate, load, decode_step   the entries
batch_sizes                          many texts at once, by their number
resident                             the most memory that a process has had
llamacpp, llamacpp_worker            generation beside llama.cpp
sides, worker, *_workers             two sides in turns, each in its process
random_llama                         a Llama of true size with random weights
"""
