"""Influence of documents: gradients of single documents, and what is predicted of a run without one of them."""

from pathlib import Path

import numpy as np
import pytest
import torch

import lowrank
from lowrank.adapters import adapter_parameters
from lowrank.data.encoding.batching import Example
from lowrank.data.encoding.packing import rows_of_one
from lowrank.model.llama import Llama
from lowrank.progress import ProgressBar
from lowrank.train.config import TrainConfig
from lowrank.train.influence.effects import StepUse, effects, steps_taken
from lowrank.train.influence.gradients import Products, document_gradient, gradient_products
from lowrank.train.step import batch_loss

EXAMPLES = [
    Example(str(place), tuple(range(3 + place, 13 + 2 * place)), (-100, -100, *range(5 + place, 13 + 2 * place)))
    for place in range(5)
]


@pytest.fixture
def model(golden: Path) -> Llama:
    """A tiny base in float64 with a hat of random numbers."""
    model = lowrank.load(golden / "meta-tiny-mha", "fp32")
    lowrank.add_adapter(model, "hat", rank=2, targets=["wq", "w2"])
    generator = torch.Generator().manual_seed(0)
    for parameter in adapter_parameters(model, "hat").values():
        torch.nn.init.normal_(parameter, std=0.1, generator=generator)
    lowrank.use_adapter(model, "hat")
    return model.double()


def nats(model: Llama, example: Example) -> float:
    with torch.no_grad():
        return batch_loss(model, rows_of_one([example]))[0].item()


def add(parameters: dict[str, torch.nn.Parameter], change: torch.Tensor) -> None:
    with torch.no_grad():
        sizes = [parameter.numel() for parameter in parameters.values()]
        for parameter, part in zip(parameters.values(), change.split(sizes), strict=True):
            parameter.add_(part.view_as(parameter))


def test_a_gradient_is_the_limit_of_differences(model: Llama) -> None:
    """The error of a central difference falls with the square of its step: halved, it is a quarter."""
    parameters = adapter_parameters(model, "hat")
    gradient = document_gradient(model, EXAMPLES[0], parameters)
    direction = torch.randn(len(gradient), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = []
    for step in (2e-3, 1e-3):
        add(parameters, step * direction)
        above = nats(model, EXAMPLES[0])
        add(parameters, -2 * step * direction)
        below = nats(model, EXAMPLES[0])
        add(parameters, step * direction)
        errors.append(abs((above - below) / (2 * step) - float(gradient @ direction)))
    assert 3 < errors[0] / errors[1] < 5


def test_products_are_those_of_the_gradients_under_the_scale(model: Llama) -> None:
    parameters = adapter_parameters(model, "hat")
    gradients = torch.stack([document_gradient(model, example, parameters) for example in EXAMPLES])
    scale = torch.rand(gradients.shape[1], generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    with ProgressBar(disable=True) as bar:
        found = gradient_products(model, parameters, EXAMPLES[:3], EXAMPLES[3:], {"scaled": scale}, bar)["scaled"]
    whole = ((gradients * scale) @ gradients.T).numpy()
    np.testing.assert_allclose(found.between, whole[3:, :3], rtol=1e-12)
    np.testing.assert_allclose(found.own, np.diagonal(whole)[:3], rtol=1e-12)


@pytest.mark.parametrize("left_out", [0, 2])
def test_the_prediction_is_what_a_small_step_without_the_document_gives(model: Llama, left_out: int) -> None:
    """To first order: of half the rate the rest is a quarter."""
    parameters, train, test = adapter_parameters(model, "hat"), EXAMPLES[:4], EXAMPLES[4]
    gradients = {one.id: document_gradient(model, one, parameters) for one in train}
    tokens = [example.supervised for example in train]
    with ProgressBar(disable=True) as bar:
        scale = torch.ones_like(gradients["0"])
        products = gradient_products(model, parameters, train, [test], {"sgd": scale}, bar)["sgd"]

    def after(rate: float, members: list[Example]) -> float:
        step = sum(gradients[one.id] for one in members) / sum(one.supervised for one in members)
        add(parameters, -rate * step)
        found = nats(model, test)
        add(parameters, rate * step)
        return found

    rest = []
    for rate in (2e-3, 1e-3):
        actual = after(rate, [one for one in train if one is not train[left_out]]) - after(rate, train)
        use = StepUse(1, {"sgd": rate}, (0, 1, 2, 3))
        predicted = effects([use], {1: products}, tokens, "sgd")[0][0, left_out]
        rest.append(abs(actual - predicted))
    assert 3 < rest[0] / rest[1] < 5


def test_effects_by_hand() -> None:
    """Two documents of 1 and 3 tokens: without the first, G = (2 + 6) / 4 = 2 becomes 6 / 3 = 2: nothing changes."""
    products = {1: Products(np.array([[2.0, 6.0]]), np.array([1.0, 9.0])), 2: Products(np.ones((1, 2)), np.ones(2))}
    found, own = effects([StepUse(1, {"sgd": 0.5}, (0, 1))], products, [1, 3], "sgd")
    np.testing.assert_allclose(found, [[0.0, 0.0]])
    np.testing.assert_allclose(own, [0.5 / 4, 0.5 * 9 / 4])
    alone, _ = effects([StepUse(1, {"sgd": 0.5}, (1,)), StepUse(2, {"sgd": 0.25}, (0,))], products, [1, 3], "sgd")
    np.testing.assert_allclose(alone, [[0.25, 0.5 * 6 / 3]])


def test_steps_have_their_rates_their_clipping_and_the_nearest_checkpoint() -> None:
    config = TrainConfig.from_dict(
        {"optimizer": {"clip": 1.0, "betas": [0.5, 0.999]}, "run": {"batch": 2, "epochs": 2}}
    )
    rows = [{"lr": 1.0, "grad_norm": norm} for norm in (0.5, 4.0 - 1e-6, 0.5, 0.5)]
    log = [*rows[:2], {"lr": 1.0, "skipped": True}, *rows[2:]]
    steps = steps_taken(EXAMPLES, EXAMPLES, config, log, [1, 5])
    assert [step.checkpoint for step in steps] == [1, 1, 5, 5]
    assert [step.rates["sgd"] for step in steps] == pytest.approx([1, 0.25, 1, 1])
    last = 0.5 / (1 - 0.5**4)
    third = 0.5 / (1 - 0.5**3) + 0.5 * last
    assert [step.rates["adam"] for step in steps[2:]] == pytest.approx([third, last])
    assert [len(step.documents) for step in steps] == [2, 2, 2, 2]


def test_a_document_of_weight_two_is_one_document() -> None:
    config = TrainConfig.from_dict({"run": {"batch": 10, "epochs": 1}})
    log = [{"lr": 1.0, "grad_norm": 0.1}]
    (step,) = steps_taken(EXAMPLES, [*EXAMPLES, EXAMPLES[0]], config, log, [1])
    assert sorted(step.documents) == [0, 0, 1, 2, 3, 4]
