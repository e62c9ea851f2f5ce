"""The kernel bench.

products   the entry: quantized products, ours and the peers
llama_ops  the operations between products
run        checks first, then every case
plan       what is timed
limits     what the machine reaches
targets    the bars that a run is held to
checks, peers, gpu_peers, crossover
"""
