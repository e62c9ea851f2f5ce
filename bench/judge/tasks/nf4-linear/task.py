"""The types of the task: M rows of x, N out_features, K in_features, blocks = ceil(N K / blocksize)."""

from typing import TypedDict

import torch

# x         float32 [M, K]
# codes     uint8 [ceil(N K / 2)], two codes a byte, the first in the high nibble
# absmax    float32 [blocks]
# codebook  float32 [16], the level of each code
# blocksize int, consecutive weights of W [N, K], flattened row by row, that share a maximum
# y         float32 [M, N], full of NaN: memory for the answer
input_t = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor, int, torch.Tensor]
output_t = torch.Tensor  # y, or another tensor like it


class TestSpec(TypedDict):
    """The arguments of `generate_input`."""

    m: int
    n: int
    k: int
    blocksize: int
    kind: str
    seed: int
