"""Launches of a step, counted on meta tensors: a token of Llama 2 7B is so many nodes of a graph, no more."""

import pytest
import torch

from lowrank.bench.static.launches import recorded
from lowrank.bench.static.meta_llama import decode_launches, meta_model, meta_weight
from lowrank.kernels import ops
from lowrank.model.config import PRESETS
from lowrank.train.optim import AdamW, clip_gradients


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "by"), [(0, "_pairs"), (8, "_pairs"), (64, "")], ids=["bare", "hat", "hat too wide for pairs"]
)
def test_a_token_of_7b_takes_few_launches(rank: int, by: str) -> None:
    launches = decode_launches(meta_model(PRESETS["7b"], rank))
    assert len(launches) <= 174
    names = [launch.name for launch in launches]
    assert sum("kernel" in name for name in names) == 5 * 32 + 2
    for kernel, times in (("qkv", 32), ("gate_up", 32), ("residual", 64)):
        assert names.count(f"{kernel}{by}_kernel") == times


def test_without_the_fused_step_each_product_and_operation_is_counted() -> None:
    model = meta_model(PRESETS["7b"], layers=1)
    model.fused_blocks = None
    names = [launch.name for launch in decode_launches(model)]
    assert names.count("decode_pairs_kernel") == 7
    assert {"rope_kernel", "swiglu_kernel", "decode_attention_kernel", "embedding", "mm"} <= set(names)


def test_views_launch_nothing_and_bytes_are_those_of_the_tensors() -> None:
    x = torch.empty(3, 8, device="meta")
    with recorded() as launches:
        x.view(24)[None].expand(5, 24).T.unflatten(0, (3, 8))
        x + x
    assert [(launch.name, launch.bytes) for launch in launches] == [("add", 3 * 3 * 8 * 4)]


def test_a_product_takes_the_path_of_a_gpu() -> None:
    x, weight = torch.empty(1, 256, dtype=torch.bfloat16, device="meta"), meta_weight(64, 256)
    with recorded() as launches:
        ops.linear(x, weight)
    assert [launch.name for launch in launches] == ["decode_pairs_kernel"]


@pytest.mark.parametrize("states", ["fp32", "8bit"])
def test_clipping_and_update_of_a_hat_take_few_launches(states: str) -> None:
    model = meta_model(PRESETS["7b"], 8, trainable=True, layers=4)
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    optimizer = AdamW(parameters, states=states)
    for _ in range(2):  # in the first step tables are made that stay
        for parameter in parameters.values():
            parameter.grad = torch.empty_like(parameter)
        with recorded() as launches:
            clip_gradients(parameters.values(), 1.0)
            optimizer.step(1e-4)
    assert len(parameters) == 4 * 7 * 2 and len(launches) <= 20
