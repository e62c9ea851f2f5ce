"""Intruder dimensions without the SVD of W: held to that SVD on matrices small enough for it."""

import pytest
import torch

from lowrank.adapters.algebra.factored import factor
from lowrank.adapters.files import Pair
from lowrank.eval.inspect.intruders import cosine_bounds, find_intruders, leading_left
from lowrank.layers.lora import AdapterConfig

COUNT, THRESHOLD = 8, 0.5


def make_weight(n, k, decay, seed=0):
    """[n, k], its singular values falling like i^-decay; random normal where decay is 0"""
    w = torch.randn(n, k, generator=torch.Generator().manual_seed(seed))
    if decay:
        u, s, vh = torch.linalg.svd(w, full_matrices=False)
        w = (u * torch.arange(1, len(s) + 1).float() ** -decay) @ vh
    return w / torch.linalg.svdvals(w)[0]


def make_delta(n, k, size, rank=4, seed=1):
    """An update of spectral norm `size` times that of the weight, in random directions."""
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.randn(rank, k, generator=generator), torch.randn(n, rank, generator=generator)
    pair = Pair(AdapterConfig(rank, float(rank), ()), a, b)
    return factor(pair._replace(lora_B=b * size / float(factor(pair).sigma[0])))


@pytest.mark.slow
@pytest.mark.parametrize("size", [0.05, 0.6, 3.0])
@pytest.mark.parametrize("decay", [0, 0.5, 1.0])
@pytest.mark.parametrize(("n", "k"), [(160, 160), (160, 240), (240, 160)], ids=lambda size: str(size))
def test_the_bounds_hold_and_the_verdict_is_that_of_the_svd(n, k, decay, size):
    w, delta = make_weight(n, k, decay), make_delta(n, k, size)
    found, exact = (find_intruders(w, delta, COUNT, THRESHOLD, exact) for exact in (False, True))
    assert found.sigma == pytest.approx(exact.sigma, rel=1e-4)
    for bound, cosine in zip(found.at_most, exact.cosines, strict=True):
        assert bound >= cosine - 1e-3
    assert found.found + found.undecided >= exact.found >= found.found
    assert exact.undecided == 0


def test_a_large_hat_in_new_directions_intrudes_and_a_small_one_does_not():
    w = make_weight(200, 200, 0.5)
    assert find_intruders(w, make_delta(200, 200, 5.0), COUNT, THRESHOLD).found == 4  # the rank of the hat
    assert find_intruders(w, make_delta(200, 200, 0.01), COUNT, THRESHOLD).found == 0


def test_a_hat_along_a_singular_vector_of_w_does_not_intrude_however_large():
    w = make_weight(120, 120, 0.5)
    u, _, vh = torch.linalg.svd(w)
    pair = Pair(AdapterConfig(1, 1.0, ()), 10 * vh[5:6], u[:, 5:6])
    found = find_intruders(w, factor(pair), 1, THRESHOLD)
    assert found.found == 0 and found.cosines[0] == pytest.approx(1, abs=1e-3)


def test_more_vectors_than_there_are_and_a_matrix_of_one_row():
    assert len(find_intruders(make_weight(3, 9, 0), make_delta(3, 9, 1.0, rank=2), 10, THRESHOLD).sigma) == 3
    assert len(find_intruders(torch.ones(1, 9), make_delta(1, 9, 1.0, rank=1), 10, THRESHOLD).sigma) == 1


def test_leading_vectors_are_those_of_the_svd():
    m = make_weight(150, 90, 0.7)
    y, sigma, off = leading_left(lambda v: m @ v, lambda u: m.T @ u, 150, 6)
    u, s, _ = torch.linalg.svd(m, full_matrices=False)
    torch.testing.assert_close(sigma.float(), s[:6], rtol=1e-4, atol=0)
    lengths = (y - u[:, :6] * (y * u[:, :6]).sum(dim=0).sign()).norm(dim=0)
    assert (lengths.double() <= off + 1e-3).all()


def test_masses_of_a_measure_known_by_hand():
    eigenvalues = torch.tensor([1.0, 2.0, 3.0, 4.0])
    y = torch.tensor([[0.8], [0.6], [0.0], [0.0]])
    found, at_most = cosine_bounds(lambda u: eigenvalues[:, None] * u, y)
    assert float(found[0]) == pytest.approx(0.8, abs=1e-5)
    assert float(at_most[0]) == pytest.approx(0.8, abs=1e-5)
