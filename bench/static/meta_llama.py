"""A Llama of meta tensors, as it is on a GPU: repacked weights and the operations of CUDA, shapes without numbers."""

import math
from dataclasses import replace

import torch

from lowrank.kernels.llama_ops.cuda import CUDA_OPS
from lowrank.kernels.weights.quantized_weight import BLOCKSIZE, NESTED_BLOCKSIZE, NestedAbsmax, Repacked4bit
from lowrank.kernels.weights.repack import GROUP_WEIGHTS
from lowrank.layers.gpu_decode import GpuBlocks
from lowrank.layers.quant_linear import CastLinear, QuantLinear
from lowrank.model.config import ModelConfig
from lowrank.model.llama import KVCache, Llama
from lowrank.model.meta_device import meta_device
from lowrank.model.param_names import is_block_linear
from lowrank.model.static_decode import DecodeStep

from ..models.random_hat import wear_random_hat
from .launches import Launch, recorded

META = torch.device("meta")


def meta_weight(n: int, k: int) -> Repacked4bit:
    """W [N, K] in nf4-dq, repacked"""
    group = math.gcd(k // BLOCKSIZE, GROUP_WEIGHTS // BLOCKSIZE)
    blocks, rows = n * k // BLOCKSIZE, (k // BLOCKSIZE // group, n, group)
    codes, absmax = (torch.empty(*rows, *more, dtype=torch.uint8, device=META) for more in ((BLOCKSIZE // 2,), ()))
    maxima = torch.empty(math.ceil(blocks / NESTED_BLOCKSIZE), device=META)
    return Repacked4bit(codes, NestedAbsmax(absmax, maxima, torch.empty((), device=META)), "nf4", BLOCKSIZE, (n, k))


def meta_model(config: ModelConfig, rank: int = 0, trainable: bool = False, layers: int | None = None) -> Llama:
    """In bfloat16 and nf4-dq; rank: of an adapter on every linear of a block, 0 for none"""
    config = config if layers is None else replace(config, n_layers=layers)
    with meta_device():
        model = Llama(config, ops=CUDA_OPS).bfloat16()
        for name, shape in config.parameter_shapes().items():
            if is_block_linear(name):
                model.set_submodule(name.removesuffix(".weight"), QuantLinear(meta_weight(*shape)))
        model.output = CastLinear(model.output.weight.detach())
        model.fused_blocks = GpuBlocks()
        model.requires_grad_(False).eval()
        if rank:
            wear_random_hat(model, rank, trainable)
    return model


def decode_launches(model: Llama, window: int = 1024) -> list[Launch]:
    """The nodes of the graph of one token behind a cache of `window` positions."""
    cache = KVCache(model.config, 1, window, torch.bfloat16, META)
    cache.length = window - 1
    step = DecodeStep(model, cache)
    with torch.no_grad(), recorded() as launches:  # under inference_mode torch's operators are not taken apart
        step.widen()
        launches.clear()
        step.logits()
    return launches
