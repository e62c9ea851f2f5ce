"""The functions of exact numerics: their errors by the rule of the house, and one result for every instruction set of
this processor, at one and two threads."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from draws import normal
from error_bounds import assert_as_exact_as_plain, assert_product_is_exact_enough
from torch import Tensor

from lowrank.kernels.cpu import exact, library

pytestmark = pytest.mark.skipif(bool(library.unavailable_reason()), reason=library.unavailable_reason())

every_set = pytest.mark.usefixtures("instruction_set", "unwritten_is_nan")
SHAPES = ((1, 1, 1), (7, 33, 129), (64, 64, 64), (97, 257, 300), (5, 700, 1030), (300, 8, 512))


def floats(step: int) -> Tensor:
    """Every step-th float32 that is a number, of both signs."""
    magnitudes = torch.arange(0, 0x7F800000, step, dtype=torch.int64).to(torch.int32).view(torch.float32)
    return torch.cat([magnitudes, -magnitudes])


def ulps(y: Tensor, truth: Tensor) -> float:
    """The largest error, in units in the last place of float32 at the truth."""
    rounded = truth.float().abs()
    place = (rounded.nextafter(torch.full_like(rounded, torch.inf)) - rounded).double()
    return ((y.double() - truth).abs() / place).max().item()


@every_set
def test_functions_are_near_float64_over_their_whole_range() -> None:
    x = floats(step=9_973)
    assert ulps(exact.function("exp", small := x[(x > -104) & (x < 88.7)]), small.double().exp()) < 1
    assert ulps(exact.function("log", above := x[x > 0]), above.double().log()) < 0.501
    angles = torch.cat([x[x.abs() < 2**20], torch.arange(2.0**20)])
    assert ulps(exact.function("cos", angles), angles.double().cos()) < 0.501
    assert ulps(exact.function("sin", angles), angles.double().sin()) < 0.501


@every_set
def test_exp_ends_in_zero_and_infinity() -> None:
    x = torch.tensor([0.0, -104.0, -1e30, -math.inf, 88.8, 1e30, math.inf])
    assert exact.function("exp", x).tolist() == [1.0, 0.0, 0.0, 0.0, math.inf, math.inf, math.inf]
    assert exact.function("exp", torch.tensor([math.nan])).isnan().all()


@every_set
@pytest.mark.parametrize("size", SHAPES, ids="{0[0]}x{0[1]}x{0[2]}".format)
def test_products_are_as_exact_as_matmul(size: tuple[int, int, int]) -> None:
    m, n, terms = size
    a, b = normal(m, terms), normal(terms, n, seed=1)
    assert_product_is_exact_enough(exact.product(a, b), a, b, b.double())


@every_set
@pytest.mark.parametrize("size", SHAPES, ids="{0[0]}x{0[1]}x{0[2]}".format)
def test_strides_and_cuts_change_no_bit(size: tuple[int, int, int]) -> None:
    m, n, terms = size
    a, b = normal(m, terms), normal(terms, n, seed=1)
    c = exact.product(a, b)
    assert torch.equal(exact.product(a.T.contiguous().T, b.T.contiguous().T), c)
    cut, out = terms // 2 // exact.CHUNK * exact.CHUNK, torch.full((m, n + 3), torch.nan)[:, 1 : n + 1]
    out = exact.product(a[:, :cut], b[:cut], out)
    assert torch.equal(exact.product(a[:, cut:], b[cut:], out, add=True), c)
    assert torch.equal(torch.cat([exact.product(row[None], b) for row in a]), c)


@every_set
def test_products_of_small_integers_are_what_they_are() -> None:
    for m, n, terms in SHAPES:
        a, b = ((normal(*shape, seed=seed) * 8).round() for seed, shape in enumerate([(m, terms), (terms, n)]))
        start = (normal(m, n, seed=2) * 8).round()
        assert torch.equal(
            exact.product(a, b, start.clone(), add=True).double(), start.double() + a.double() @ b.double()
        )
    assert torch.equal(exact.product(torch.empty(3, 0), torch.empty(0, 4)), torch.zeros(3, 4))


def of_torch(run: Callable[..., Any], *inputs: Tensor, dtype: torch.dtype) -> list[Tensor]:
    """The outputs of `run` in a dtype of torch, and its gradients by the inputs, with dy of `normal`."""
    leaves = [x.to(dtype, copy=True).requires_grad_() for x in inputs]
    y = run(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, normal(*y.shape, seed=9).to(dtype))]


def assert_near_truth(ours: list[Tensor], run: Callable[..., Any], *inputs: Tensor) -> None:
    """Outputs and gradients within the rule of the house, of plain torch in float32 and float64."""
    plain, truth = (of_torch(run, *inputs, dtype=dtype) for dtype in (torch.float32, torch.float64))
    assert len(ours) == len(plain) == len(truth)
    for mine, its, true in zip(ours, plain, truth, strict=True):
        assert_as_exact_as_plain(mine, its, true)


@every_set
@pytest.mark.parametrize("channels", [64, 100, 4096])
def test_rms_norm(channels: int) -> None:
    x, weight = normal(40, channels), 1 + normal(channels, seed=1) / 4
    y, rstd = exact.rms_norm(x, weight, 1e-5)
    dx = exact.rms_norm_backward(normal(40, channels, seed=9), x, rstd, weight)
    assert_near_truth([y, dx], lambda x: F.rms_norm(x, (channels,), weight.to(x.dtype), 1e-5), x)


@every_set
def test_swiglu() -> None:
    gate, up = normal(3, 1003) * 4, normal(3, 1003, seed=1)
    ours = [exact.swiglu(gate, up), *exact.swiglu_backward(normal(3, 1003, seed=9), gate, up)]
    assert_near_truth(ours, lambda gate, up: F.silu(gate) * up, gate, up)
    ends = torch.tensor([-1e4, 0.0, 1e4])
    assert exact.swiglu(ends, torch.ones(3)).tolist() == [0.0, 0.0, 1e4]


@every_set
@pytest.mark.parametrize("interleaved", [True, False])
def test_rope(interleaved: bool) -> None:
    x, angles = normal(2, 5, 3, 64), normal(2, 5, 1, 32, seed=1)
    cos, sin = angles.cos(), angles.sin()

    def turned(x: Tensor) -> Tensor:
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1) if interleaved else x.chunk(2, -1)
        pair = [a * cos.to(x.dtype) - b * sin.to(x.dtype), a * sin.to(x.dtype) + b * cos.to(x.dtype)]
        return torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)

    back = exact.rope(normal(2, 5, 3, 64, seed=9), cos, sin, interleaved, inverse=True)
    assert_near_truth([exact.rope(x, cos, sin, interleaved, inverse=False), back], turned, x)


@every_set
@pytest.mark.parametrize("vocabulary", [100, 1001, 32_000])
def test_cross_entropy(vocabulary: int) -> None:
    logits, rows = normal(1000, vocabulary) * 3 if vocabulary < 2000 else normal(50, vocabulary) * 3, torch.arange
    targets = rows(len(logits)) % vocabulary
    z = logits.clone()
    losses = exact.cross_entropy_(z, targets)
    exact_losses = F.cross_entropy(logits.double(), targets, reduction="none")
    exact_z = logits.double().softmax(1) - F.one_hot(targets, vocabulary)
    assert_as_exact_as_plain(losses, F.cross_entropy(logits, targets, reduction="none"), exact_losses)
    assert_as_exact_as_plain(z, logits.softmax(1) - F.one_hot(targets, vocabulary), exact_z)


@every_set
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("is_packed", [False, True])
def test_attention(length: int, is_packed: bool) -> None:
    q, k, v = normal(2, 4, length, 32), normal(2, 2, length, 32, seed=1), normal(2, 2, length, 32, seed=2)
    starts = torch.stack([torch.arange(length) // 40 * 40, torch.zeros(length, dtype=torch.int64)])
    place = torch.arange(length)
    mask = place <= place[:, None]
    if is_packed:
        mask = (mask & (place >= starts[:, :, None]))[:, None]
    seen = starts if is_packed else None
    ours = [exact.attention(q, k, v, seen), *exact.attention_backward(normal(*q.shape, seed=9), q, k, v, seen)]

    def of_equations(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
        scores = (q @ k.mT / 32**0.5).masked_fill(~mask, -torch.inf)
        return scores.softmax(-1) @ v

    assert_near_truth(ours, of_equations, q, k, v)


@every_set
def test_adamw() -> None:
    gradient, start, m, v = normal(1003), normal(1003, seed=1), normal(1003, seed=2), normal(1003, seed=3).square()
    constants = exact.AdamW(0.9, 1 - 0.9, 0.999, 1 - 0.999, 0.99, 1e-2, 0.5, 1e-8)

    def stepped(dtype: torch.dtype) -> list[Tensor]:
        g, p, m_then, v_then = (x.to(dtype) for x in (gradient, start, m, v))
        named = {name: getattr(constants, name) for name, _ in exact.AdamW._fields_}
        m_now = named["beta1"] * m_then + named["one_less_beta1"] * g
        v_now = named["beta2"] * v_then + named["one_less_beta2"] * g.square()
        return [named["kept"] * p - named["step"] * m_now / (v_now.sqrt() / named["root"] + named["eps"]), m_now, v_now]

    parameter, m_now, v_now = start.clone(), m.clone(), v.clone()
    exact.adamw(constants, gradient, parameter, m_now, v_now)
    for ours, plain, truth in zip(
        (parameter, m_now, v_now), stepped(torch.float32), stepped(torch.float64), strict=True
    ):
        assert_as_exact_as_plain(ours, plain, truth)


@every_set
def test_sums() -> None:
    x, y = normal(100_003), normal(100_003, seed=1)
    assert exact.total(x) == pytest.approx(math.fsum(x.tolist()), abs=100_003 * 2**-52)
    assert exact.total(x, y) == pytest.approx(math.fsum((x.double() * y.double()).tolist()), abs=100_003 * 2**-50)
    assert exact.total(torch.empty(0)) == 0


def everything() -> Iterator[Tensor]:
    """Results of every function, of sizes with tails and more than one thread's work."""
    x = normal(200, 1500) * 3
    for name in exact.FUNCTIONS:
        yield exact.function(name, x.abs() + 0.1)
    yield torch.tensor([exact.total(x), exact.total(x, x)], dtype=torch.float64)
    for m, n, terms in (*SHAPES, (130, 1100, 700), (1100, 130, 700)):
        yield exact.product(normal(m, terms), normal(terms, n, seed=1))
    weight = normal(1500, seed=2)
    y, rstd = exact.rms_norm(x, weight, 1e-5)
    yield from (y, rstd, exact.rms_norm_backward(y, x, rstd, weight))
    yield from (exact.swiglu(x, y), *exact.swiglu_backward(y, x, y))
    heads, cos, sin = normal(2, 150, 8, 50), *(normal(2, 150, 1, 25, seed=seed) for seed in (1, 2))
    yield from (exact.rope(heads, cos, sin, interleaved, inverse=interleaved) for interleaved in (True, False))
    logits = x.clone()
    yield from (exact.cross_entropy_(logits, torch.arange(200)), logits)
    q, k, v = heads.transpose(1, 2), normal(2, 4, 150, 50, seed=3), normal(2, 4, 150, 50, seed=4)
    for starts in (None, torch.arange(150).expand(2, -1) // 70 * 70):
        yield from (exact.attention(q, k, v, starts), *exact.attention_backward(q, q, k, v, starts))
    parameter, m, v = normal(200, 1500, seed=5), normal(200, 1500, seed=6), normal(200, 1500, seed=7).square()
    exact.adamw(exact.AdamW(0.9, 0.1, 0.999, 0.001, 0.99, 1e-2, 0.5, 1e-8), x, parameter, m, v)
    yield from (parameter, m, v)


def test_every_set_and_number_of_threads_has_the_same_bits(threads: Any) -> None:
    """The sets of this processor: AVX-512 is compared where there is one, NEON under emulation elsewhere."""
    choose, before = library.library().lowrank_choose, library.instruction_set()
    found = {}
    for name in library.usable_sets():
        for count in (1, 2):
            choose(name.encode())
            threads(count)
            found[name, count] = list(everything())
    choose(before.encode())
    (first, *others) = found.values()
    assert ("portable", 2) in found and all(bool(result.isfinite().all()) for result in first)
    for result in others:
        for ours, theirs in zip(first, result, strict=True):
            assert torch.equal(ours, theirs)
