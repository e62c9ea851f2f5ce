"""A hat on every linear of a block, random: without `lowrank.adapters`, whose files need more than torch."""

import torch
from torch import nn

from lowrank.layers.lora import AdapterConfig, LoRALinear
from lowrank.layers.quant_linear import QuantLinear
from lowrank.model.llama import Llama

NAME = "bench"


def wear_random_hat(model: Llama, rank: int, trainable: bool = False) -> dict[str, nn.Parameter]:
    """Its parameters by name. B is so small that logits stay finite. On a meta model they have no numbers."""
    parameters: dict[str, nn.Parameter] = {}
    device = model.tok_embeddings.weight.device
    for path, base in [(path, module) for path, module in model.named_modules() if isinstance(module, QuantLinear)]:
        layer = LoRALinear(base, base.in_features, base.out_features)
        lora_A = torch.randn(rank, base.in_features, device=device) / base.in_features**0.5
        lora_B = 1e-3 * torch.randn(base.out_features, rank, device=device)
        layer.add(NAME, AdapterConfig(rank, 2.0 * rank, ()), lora_A, lora_B, trainable)
        layer.active = ((NAME, 1.0),)
        model.set_submodule(path, layer)
        parameters |= {f"{path}.lora_A": layer.lora_A[NAME], f"{path}.lora_B": layer.lora_B[NAME]}
    return parameters
