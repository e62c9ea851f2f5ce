"""A hat's update, from its small matrices: every figure against the d x d matrix that is otherwise never formed."""

import math

import pytest
import torch

from lowrank.adapters.algebra.factored import factor
from lowrank.adapters.files import Pair
from lowrank.eval.inspect.delta import angles, spectrum
from lowrank.layers.lora import AdapterConfig


def make_pair(n, k, rank, seed=0, alpha=16.0, rslora=False):
    generator = torch.Generator().manual_seed(seed)
    config = AdapterConfig(rank, alpha, (), rslora=rslora)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return Pair(config, draw(rank, k), draw(n, rank))


@pytest.mark.parametrize(
    ("n", "k", "rank"), [(40, 24, 4), (24, 40, 4), (6, 40, 8), (40, 6, 8), (5, 5, 1)], ids=lambda size: str(size)
)
def test_the_factors_are_the_svd_of_delta_w(n, k, rank):
    pair = make_pair(n, k, rank, rslora=True)
    delta, whole = factor(pair), pair.delta().double()
    torch.testing.assert_close(delta.dense(), whole, rtol=0, atol=1e-5 * float(whole.abs().max()))
    expected = torch.linalg.svdvals(whole)[: len(delta.sigma)]
    torch.testing.assert_close(delta.sigma, expected, rtol=1e-5, atol=1e-5 * float(expected[0]))
    assert delta.rank == min(n, k, rank)
    for basis in (delta.left, delta.right):
        torch.testing.assert_close(
            basis.T @ basis, torch.eye(len(delta.sigma), dtype=torch.float64), rtol=0, atol=1e-12
        )


def test_a_negative_scaling_has_positive_singular_values():
    pair = make_pair(10, 12, 3, alpha=-6.0)
    delta = factor(pair)
    assert (delta.sigma > 0).all()
    torch.testing.assert_close(delta.dense().float(), pair.delta(), rtol=0, atol=1e-4)


def test_figures_of_a_spectrum_known_by_hand():
    config = AdapterConfig(2, 2.0, ())
    found = spectrum(factor(Pair(config, torch.eye(2, 5), torch.tensor([[3.0, 0], [0, 1], [0, 0]]))))
    assert found.singular_values == pytest.approx((3, 1))
    assert found.norm == pytest.approx(math.sqrt(10)) and found.spectral == pytest.approx(3)
    assert found.stable_rank == pytest.approx(10 / 9)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert found.effective_rank == pytest.approx(math.exp(entropy))
    assert found.directions_99 == 2  # the first carries 90 %


def test_equal_singular_values_have_full_rank_of_either_kind():
    q = torch.linalg.qr(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)))[0]
    found = spectrum(factor(Pair(AdapterConfig(4, 4.0, ()), torch.eye(4, 9), q)))
    assert found.stable_rank == pytest.approx(4) and found.effective_rank == pytest.approx(4)


def test_a_hat_that_was_never_trained_has_no_rank_and_no_angles():
    fresh = make_pair(12, 10, 3)
    fresh = fresh._replace(lora_B=torch.zeros_like(fresh.lora_B))
    found = spectrum(factor(fresh))
    assert (found.norm, found.stable_rank, found.effective_rank, found.directions_99) == (0, 0, 0, 0)
    between = angles(factor(fresh), factor(make_pair(12, 10, 3)))
    assert (between.cosine, between.out_degrees, between.out_overlap) == (0, (), 0)


def test_angles_are_those_of_the_whole_matrices():
    one, other = make_pair(30, 20, 3, seed=1), make_pair(30, 20, 5, seed=2)
    found = angles(factor(one), factor(other))
    a, b = one.delta().double(), other.delta().double()
    assert found.cosine == pytest.approx(float((a * b).sum() / (a.norm() * b.norm())), abs=1e-6)
    for degrees, spaces in ((found.out_degrees, (a, b)), (found.in_degrees, (a.T, b.T))):
        bases = [torch.linalg.svd(space)[0][:, :rank] for space, rank in zip(spaces, (3, 5), strict=True)]
        expected = torch.rad2deg(torch.arccos(torch.linalg.svdvals(bases[0].T @ bases[1])))
        assert degrees == pytest.approx(expected.tolist(), abs=1e-3)
    assert found.chance_out == 5 / 30 and found.chance_in == 5 / 20


def test_a_hat_and_a_part_of_it_read_and_write_in_one_space():
    whole = make_pair(30, 20, 4)
    part = whole._replace(lora_A=whole.lora_A[:2], lora_B=whole.lora_B[:, :2])
    found = angles(factor(whole), factor(part))
    assert found.out_overlap == pytest.approx(1) and found.in_overlap == pytest.approx(1)
    assert max(found.out_degrees) < 0.05


def test_random_spaces_overlap_as_chance_has_it():
    found = [angles(factor(make_pair(60, 50, 4, seed)), factor(make_pair(60, 50, 4, seed + 99))) for seed in range(60)]
    mean = sum(part.out_overlap for part in found) / len(found)
    deviation = math.sqrt(sum((part.out_overlap - mean) ** 2 for part in found) / len(found))
    assert abs(mean - found[0].chance_out) < 4 * deviation / math.sqrt(len(found))
