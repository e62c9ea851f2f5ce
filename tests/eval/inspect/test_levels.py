"""The distribution of w / absmax, and the best levels for it."""

import math

import pytest
import torch

from lowrank.eval.inspect.levels import (
    BINS,
    PLACES,
    Distribution,
    equal_shares,
    lloyd_max,
    normal_distribution,
    relative_error,
    shares,
)
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.reference.codes import entropy_bits
from lowrank.kernels.weights import codebooks


@pytest.fixture(scope="module")
def normal_weights():
    w = torch.randn(512, 1024, generator=torch.Generator().manual_seed(0))
    return w, w.view(-1, 64).abs().amax(dim=1)


@pytest.fixture(scope="module")
def observed(normal_weights):
    u = Distribution.empty()
    u.add(*normal_weights, 64)
    return u


def test_every_weight_is_counted_and_its_energy_is_its_own(normal_weights, observed) -> None:
    w, absmax = normal_weights
    assert observed.counts.sum() == w.numel()
    assert float(observed.energy.sum()) == pytest.approx(64 * float(absmax.double().square().sum()))
    total = float((observed.energy * PLACES.square()).sum())
    assert total == pytest.approx(float(w.double().square().sum()), rel=1e-4)  # a bin's width, 2 / 8192
    assert observed.counts[[0, -1]].sum() >= len(absmax)  # each block has its maximum at an end


def test_blocks_of_zeros_and_a_short_last_block() -> None:
    u = Distribution.empty()
    w = torch.zeros(2, 50)
    w[1, 20:] = torch.linspace(-3, 3, 30)
    u.add(w, torch.tensor([0.0, 3.0]), 64)
    assert u.counts.sum() == 36  # the second block alone
    assert u.counts[0] == u.counts[BINS] == 1


def test_the_error_of_nf4_is_the_quantizers_own(normal_weights, observed) -> None:
    w, _ = normal_weights
    error = (reference.dequantize(reference.quantize_4bit(w)) - w).double().square().sum()
    expected = float(error / w.double().square().sum())
    assert relative_error(observed.energy, codebooks.nf4()) == pytest.approx(expected, rel=1e-3)


def test_normal_weights_are_distributed_as_the_formula_says(observed) -> None:
    formula = normal_distribution(64)
    assert float(formula.counts.sum()) == pytest.approx(1, abs=1e-6)
    for ours, theirs in ((formula.counts, observed.counts), (formula.energy, observed.energy)):
        cumulated = [part.cumsum(0) / part.sum() for part in (ours, theirs)]
        assert float((cumulated[0] - cumulated[1]).abs().max()) < 1.63 / math.sqrt(512 * 1024 / 64)  # Kolmogorov, 1 %
    assert float(formula.counts[[0, -1]].sum()) == pytest.approx(1 / 64, rel=1e-2)


def test_lloyd_max_of_a_uniform_distribution_is_evenly_spaced() -> None:
    mass = torch.ones_like(PLACES)
    found = lloyd_max(mass, torch.linspace(-0.9, 0.8, 16))
    expected = (torch.arange(16).double() + 0.5) / 8 - 1
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


def test_lloyd_max_of_a_normal_distribution_is_the_published_one() -> None:
    """Max 1960, table I, N = 4: levels 0.4528 and 1.510 deviations, a mean square error of 0.1175."""
    deviation = 0.15
    mass = torch.exp(-(PLACES**2) / (2 * deviation**2))
    found = lloyd_max(mass, torch.tensor([-0.5, -0.1, 0.1, 0.5]))
    assert (found / deviation).tolist() == pytest.approx([-1.510, -0.4528, 0.4528, 1.510], abs=2e-3)
    assert relative_error(mass, found) == pytest.approx(0.1175, abs=2e-4)


def test_lloyd_max_is_no_worse_than_where_it_began_and_cannot_be_bettered_nearby(observed) -> None:
    found = lloyd_max(observed.energy, codebooks.nf4())
    best = relative_error(observed.energy, found)
    assert best < relative_error(observed.energy, codebooks.nf4())
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        nudged = (found + 0.01 * torch.randn(16, generator=generator, dtype=torch.float64)).sort().values
        assert relative_error(observed.energy, nudged) > best


def test_a_level_that_nothing_is_nearest_to_stays() -> None:
    mass = torch.zeros_like(PLACES)
    mass[BINS // 2 :] = 1
    assert lloyd_max(mass, torch.tensor([-1.0, 0.5]))[0] == -1.0


def test_equal_shares_are_medians_of_equal_parts() -> None:
    assert equal_shares(torch.ones_like(PLACES), 4).tolist() == pytest.approx([-0.75, -0.25, 0.25, 0.75], abs=1e-3)


def test_shares_and_entropy() -> None:
    found = shares(torch.ones_like(PLACES), torch.tensor([-1.0, 0.0, 1.0]))
    assert found.tolist() == pytest.approx([0.25, 0.5, 0.25], abs=1e-3)
    assert entropy_bits(torch.tensor([2, 4, 2, 0])) == pytest.approx(1.5)
    assert entropy_bits(torch.tensor([7])) == 0
