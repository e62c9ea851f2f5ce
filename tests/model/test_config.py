"""The shape of a Llama: its number of parameters, and the width of its feed-forward."""

from typing import Any

import pytest

from lowrank.model.config import PRESETS, ffn_hidden_dim
from lowrank.model.param_names import is_block_linear


@pytest.mark.parametrize(
    ("preset", "parameters", "in_blocks"),
    [
        ("7b", 6_738_415_616, 6_476_005_376),
        ("13b", 13_015_864_320, 12_687_769_600),
        ("70b", 68_976_648_192, 68_451_041_280),
    ],
)
def test_the_published_number_of_parameters(preset: str, parameters: int, in_blocks: int) -> None:
    shapes = {name: shape[0] * (*shape, 1)[1] for name, shape in PRESETS[preset].parameter_shapes().items()}
    assert sum(shapes.values()) == parameters
    assert sum(count for name, count in shapes.items() if is_block_linear(name)) == in_blocks


@pytest.mark.parametrize(
    ("arguments", "hidden"),
    [((4096, 256), 11_008), ((5120, 256), 13_824), ((8192, 4096, 1.3), 28_672), ((128, 64, 1.3), 448), ((3, 8), 8)],
)
def test_hidden_dim_of_the_feed_forward(arguments: tuple[Any, ...], hidden: int) -> None:
    assert ffn_hidden_dim(*arguments) == hidden
