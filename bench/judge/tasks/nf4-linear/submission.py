"""The plain answer: W is dequantized, then multiplied. A submission is a file with this function."""

import torch
from task import input_t, output_t


def custom_kernel(data: input_t) -> output_t:
    """y = x W^T"""
    x, codes, absmax, codebook, blocksize, y = data
    n, k = y.shape[1], x.shape[1]
    pairs = torch.cartesian_prod(codebook, codebook)  # the two levels of each byte
    w = torch.index_select(pairs, 0, codes.int()).flatten()[: n * k]
    maxima = absmax[:, None].expand(-1, blocksize).flatten()[: n * k]
    return torch.matmul(x, w.mul_(maxima).view(n, k).T, out=y)
