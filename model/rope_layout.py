"""The two orders of the rows of wq and wk, and the conversion between them.

H heads of a projection, h head dim, K columns (in_features of a weight, the rank of a lora_B).
"""

from torch import Tensor

from .config import ModelConfig, RopeLayout

ROTATED = ("attention.wq", "attention.wk")  # RoPE rotates the outputs of these two: only their rows have an order


def reorder_rope_rows(rows: Tensor, name: str, config: ModelConfig, have: RopeLayout, want: RopeLayout) -> Tensor:
    """The rows [H h, K] of the linear `name` ("layers.0.attention.wq") moved from one layout to the other

    Channel pair i of a head is in rows (2i, 2i+1) when interleaved, in rows (i, i + h/2) in halves. Nothing is
    computed, so the inverse is exact; every linear but wq and wk is returned as it is.
    """
    if have == want or not name.removesuffix(".weight").endswith(ROTATED):
        return rows
    pairs = (-1, 2) if have == "interleaved" else (2, -1)
    heads = rows.reshape(-1, config.head_dim, rows.shape[1])
    moved: Tensor = heads.unflatten(1, pairs).transpose(1, 2).reshape(rows.shape)
    return moved
