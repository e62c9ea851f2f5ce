"""The same base in other hands: transformers' Llama, its quantized weights read by bitsandbytes.

Every product is in float32. bitsandbytes' own products round (4 bit on a CPU) or quantize the activations as well
(int8): they are fast paths, no references. Its part here is to make codes, which are held against ours, and to read
ours back into float32.

N out_features, K in_features, h head dim; a weight [N, K].
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lowrank.checkpoints.open_base import open_base
from lowrank.checkpoints.stored_weight import from_stored, to_stored
from lowrank.extras import need
from lowrank.kernels import ops
from lowrank.kernels.weights.quantized_weight import (
    DENSE_DTYPES,
    Blockwise4bit,
    NestedAbsmax,
    QuantizedWeight,
    RowwiseInt8,
)
from lowrank.kernels.weights.repack import to_file_layout
from lowrank.layers.quant_linear import CastLinear, QuantLinear
from lowrank.model.checkpoint import Checkpoint, QuantizedParts
from lowrank.model.config_json import hf_scaling
from lowrank.model.llama import Llama
from lowrank.model.param_names import LINEARS, to_hf
from lowrank.model.rope_layout import reorder_rope_rows

NEEDED_FOR = "live parity"


@dataclass(frozen=True)
class CodeDifference:
    """Differences of a quantized weight of ours from bitsandbytes'.

    codes       the share of bytes (two 4-bit codes, or one of 8 bits) that differ
    statistics  the largest difference of row scales, block maxima, or the maxima of nested ones and their offset
    nested      the largest distance between 8-bit codes of block maxima, in steps; None where they are not nested
    """

    codes: float
    statistics: float
    nested: int | None


def build_reference(folder: Path, ours: Llama) -> tuple[Any, dict[str, CodeDifference]]:
    """transformers' model of a folder with the weights that `ours` has, in float32; and how the codes compare

    A Hugging Face folder is read by transformers itself; the tensors of a Meta folder and of a GGUF file are handed to
    it, the rows of wq and wk in its order. Where `ours` is in full precision, a linear is rounded to the same dtype.
    Where it is quantized, the codes that bitsandbytes makes of the same weight, or that it has read from the folder,
    are compared with ours by the path of the linear, and the weight is what bitsandbytes reads out of our codes (int8:
    what we do). A quantized Meta folder can be read by us alone: there are no other codes to compare.
    """
    checkpoint = open_base(folder)
    config = checkpoint.config
    if config.rope_layout == "half" and checkpoint.folder.is_dir():
        theirs = need("transformers", NEEDED_FOR).LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    else:
        theirs = transformers_model(checkpoint)
    differences = {}
    for path in (f"layers.{number}.{linear}" for number in range(config.n_layers) for linear in LINEARS):
        layer, module = ours.get_submodule(path), theirs.get_submodule(to_hf(path))
        if isinstance(layer, QuantLinear):
            stored = to_file_layout(layer.quantized)
            mine = stored.with_tensors({name: tensor.cpu() for name, tensor in stored.tensors().items()})
            if checkpoint.is_quantized and config.rope_layout == "half":
                differences[path] = _difference(mine, _codes_of(module))
            elif not checkpoint.is_quantized:
                source = reorder_rope_rows(module.weight.detach(), path, config, "half", config.rope_layout)
                differences[path] = _difference(mine, _quantized(source, mine))
            dense = reorder_rope_rows(_read(mine), path, config, config.rope_layout, "half")
        else:
            assert isinstance(layer, CastLinear), path
            dense = module.weight.detach().to(DENSE_DTYPES[layer.format]).float()
        theirs.set_submodule(to_hf(path), _linear(dense))
    # transformers' own `to` refuses a model that was loaded quantized; and of such it leaves the rest as it is stored.
    nn.Module.to(theirs, ours.tok_embeddings.weight.device, torch.float32)
    return theirs.requires_grad_(False).eval(), differences


def transformers_model(checkpoint: Checkpoint) -> Any:
    """transformers' model around the tensors of a base."""
    transformers, config = need("transformers", NEEDED_FOR), checkpoint.config
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=config.dim,
            intermediate_size=config.hidden_dim,
            num_hidden_layers=config.n_layers,
            num_attention_heads=config.n_heads,
            num_key_value_heads=config.n_kv_heads,
            head_dim=config.head_dim,
            vocab_size=config.vocab_size,
            rms_norm_eps=config.norm_eps,
            max_position_embeddings=config.max_seq_len,
            rope_parameters={
                "rope_theta": config.rope_theta,
                **(hf_scaling(config.rope_scaling) if config.rope_scaling else {"rope_type": "default"}),
            },
            tie_word_embeddings=config.tie_embeddings,
        )
    )
    theirs.load_state_dict(dict(_converted(checkpoint)), assign=True)
    return theirs


def _converted(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    for name, value in checkpoint.tensors():
        dense = ops.dequantize(from_stored(value.tensors, name)) if isinstance(value, QuantizedParts) else value.float()
        yield to_hf(name), reorder_rope_rows(dense, name, checkpoint.config, "interleaved", "half")


def _codes_of(module: Any) -> QuantizedWeight:
    """The quantized weight of a bitsandbytes layer, as transformers has read it from a folder."""
    if hasattr(module.weight, "quant_state"):
        return _four_bit(module.weight.data, module.weight.quant_state)
    return RowwiseInt8(module.weight.data.cpu(), module.weight.SCB.cpu())


def _quantized(source: Tensor, like: QuantizedWeight) -> QuantizedWeight:
    """A float32 weight quantized by bitsandbytes, in the format of `like`."""
    functional = need("bitsandbytes", NEEDED_FOR).functional
    if isinstance(like, RowwiseInt8):
        codes, scale, _ = functional.int8_vectorwise_quant(source)
        return RowwiseInt8(codes, scale)
    nested = isinstance(like.absmax, NestedAbsmax)
    return _four_bit(
        *functional.quantize_4bit(source, blocksize=like.blocksize, compress_statistics=nested, quant_type=like.format)
    )


def _four_bit(codes: Tensor, state: Any) -> QuantizedWeight:
    parts = {f".weight.{name}": tensor.cpu() for name, tensor in state.as_dict(packed=True).items()}
    return from_stored({".weight": codes.cpu(), **parts}, "bitsandbytes")


def _read(weight: QuantizedWeight) -> Tensor:
    """Our codes as a float32 weight: 4 bit by bitsandbytes, int8 by us."""
    if isinstance(weight, RowwiseInt8):
        return ops.dequantize(weight)
    bitsandbytes = need("bitsandbytes", NEEDED_FOR)
    stored = to_stored(weight)
    codes = stored.pop(".weight")
    statistics = {suffix.removeprefix(".weight."): tensor for suffix, tensor in stored.items()}
    theirs = bitsandbytes.nn.Params4bit.from_prequantized(codes, statistics, device="cpu")
    # As one row: where K is no multiple of the blocksize, its CPU code begins a new block with every row.
    theirs.quant_state.shape = torch.Size([math.prod(weight.shape)])
    dense: Tensor = bitsandbytes.functional.dequantize_4bit(theirs.data, theirs.quant_state)
    return dense.view(weight.shape)


def _difference(ours: QuantizedWeight, theirs: QuantizedWeight) -> CodeDifference:
    mine, other = ours.tensors(), theirs.tensors()
    assert ours.name == theirs.name
    nested = isinstance(ours, Blockwise4bit) and isinstance(ours.absmax, NestedAbsmax)
    coded = {"codes", "absmax"} if nested else {"codes"}
    return CodeDifference(
        codes=(mine["codes"].flatten() != other["codes"].flatten()).float().mean().item(),
        statistics=max((mine[name] - other[name]).abs().max().item() for name in mine.keys() - coded),
        nested=int((mine["absmax"].int() - other["absmax"].int()).abs().max()) if nested else None,
    )


def _linear(weight: Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    linear.weight = nn.Parameter(weight, requires_grad=False)
    return linear
