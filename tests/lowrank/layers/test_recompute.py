"""Selective recompute: the same gradients, bit for bit, from fewer bytes."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor

from lowrank.adapters import adapter_parameters, add_adapter, lora_layers, use_adapter
from lowrank.kernels.llama_ops.cpu import CPU_OPS
from lowrank.kernels.llama_ops.cuda import CUDA_OPS
from lowrank.layers.dropout_seed import BatchCounter, DropoutSeed
from lowrank.layers.recompute import SelectiveOps, use_ops
from lowrank.model.llama import TORCH_OPS
from lowrank.model.loss import next_token_loss


def trained(make_llama, tokens: Tensor, ops, hooks, dropout: float) -> tuple[float, dict[str, Tensor]]:
    """Loss and gradients of one batch."""
    model = make_llama()
    add_adapter(model, "hat", rank=2, dropout=dropout)
    use_adapter(model, "hat")
    for number, layer in enumerate(lora_layers(model).values()):
        layer.dropout_stream = DropoutSeed(BatchCounter(0), number)
        torch.nn.init.normal_(layer.lora_B["hat"], generator=torch.Generator().manual_seed(number))
    use_ops(model, ops)
    model.train()
    with hooks():
        loss, _ = next_token_loss(model, tokens, tokens)
        loss.backward()
    return loss.item(), {name: p.grad for name, p in adapter_parameters(model, "hat").items()}


@pytest.mark.parametrize("ops", [TORCH_OPS, CPU_OPS, CUDA_OPS], ids=["plain", "lean", "fused"])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_no_bit_of_a_gradient_changes(make_llama, random_tokens, ops, dropout: float) -> None:
    selective = SelectiveOps(ops)
    tokens = random_tokens(2, 9)
    loss, gradients = trained(make_llama, tokens, ops, nullcontext, dropout)
    other, others = trained(make_llama, tokens, selective, selective.hooks, dropout)
    assert other == loss
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)


def test_outputs_of_norms_and_swiglu_are_not_kept(make_llama, random_tokens) -> None:
    tokens, sizes = random_tokens(2, 33), []
    for ops in (CPU_OPS, SelectiveOps(CPU_OPS)):
        model = make_llama()
        add_adapter(model, "hat", rank=2)
        use_adapter(model, "hat")
        use_ops(model, ops)
        held = {}

        def note(tensor: Tensor, held=held) -> Tensor:
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        pack = note if ops is CPU_OPS else (lambda tensor, ops=ops, note=note: _noted(ops._pack(tensor), note))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda packed: packed):
            loss, _ = next_token_loss(model, tokens, tokens)
        sizes.append(sum(held.values()))
        del loss
    config = model.config
    spared = config.n_layers * 2 * 32 * (2 * config.dim + config.hidden_dim) * 4
    assert sizes[0] - sizes[1] == spared


def _noted(packed, note):
    return note(packed) if isinstance(packed, Tensor) else packed
