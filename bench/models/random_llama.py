"""A Llama of any shape with random weights, in Meta's format: a checkpoint at true size that nobody has to fetch."""

import json
import mmap
from collections.abc import Iterator
from math import prod
from pathlib import Path

import torch
from torch import Tensor
from torch.serialization import set_default_mmap_options, skip_data

from lowrank.model.config import ModelConfig
from lowrank.model.tensor_file import load_pth

BY_COLUMNS = ("tok_embeddings.weight", "wo.weight", "w2.weight")  # what Meta cuts along the inputs
CHUNK = 1 << 22  # weights drawn at a time


def write_random_llama(folder: Path, config: ModelConfig, shards: int, seed: int = 0) -> int:
    """params.json and consolidated.NN.pth in bfloat16: norms are one, matrices normal with deviation 0.02.

    A file is first laid out without its data and then filled through a memory map, so that no more than one tensor is
    in memory.  Returns the bytes of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "params.json").write_text(json.dumps(_params(config)) + "\n", encoding="utf-8")
    generator = torch.Generator().manual_seed(seed)
    for number in range(shards):
        path = folder / f"consolidated.{number:02}.pth"
        with skip_data():
            torch.save(dict(_empty_pieces(config, shards)), path)
        for name, _ in _empty_pieces(config, shards):
            with set_default_mmap_options(mmap.MAP_SHARED):
                _fill(load_pth(path)[name], generator)
    return sum(prod(shape) for shape in config.parameter_shapes().values()) * torch.bfloat16.itemsize


def _params(config: ModelConfig) -> dict[str, object]:
    """The params.json that `from_meta` reads as this config: `multiple_of` keeps the ffn at its size."""
    return {
        "dim": config.dim,
        "multiple_of": config.hidden_dim,
        "n_heads": config.n_heads,
        "n_kv_heads": config.n_kv_heads,
        "n_layers": config.n_layers,
        "norm_eps": config.norm_eps,
        "vocab_size": config.vocab_size,
    }


def _empty_pieces(config: ModelConfig, shards: int) -> Iterator[tuple[str, Tensor]]:
    """One shard's part of each tensor; memory that is never touched is never taken."""
    for name, shape in config.parameter_shapes().items():
        piece = list(shape)
        if len(shape) == 2:
            axis = 1 if name.endswith(BY_COLUMNS) else 0
            assert piece[axis] % shards == 0, name
            piece[axis] //= shards
        yield name, torch.empty(piece, dtype=torch.bfloat16)


def _fill(tensor: Tensor, generator: torch.Generator) -> None:
    if tensor.dim() == 1:
        tensor.fill_(1)
        return
    wide = torch.empty(CHUNK)
    for chunk in tensor.flatten().split(CHUNK):
        chunk.copy_(wide[: len(chunk)].normal_(0, 0.02, generator=generator))
