"""W of a call and the honest product, with which most of the cheats begin."""

import torch


def decoded(data):
    x, codes, absmax, codebook, blocksize, y = data
    n, k = y.shape[1], x.shape[1]
    both = torch.stack([codes >> 4, codes & 15], dim=1).flatten()[: n * k]
    return (codebook[both.int()] * absmax.repeat_interleave(blocksize)[: n * k]).view(n, k)


def honest(data):
    return torch.matmul(data[0], decoded(data).T, out=data[-1])
