"""Formats as functions: NF4 and FP4 are those that are stored, blocks by hand, and what theory says of levels."""

import math

import pytest
import torch

from lowrank.eval.formats.simulated import (
    BLOCKSIZES,
    E2M1,
    af4_levels,
    affine_int4,
    formats,
    iq4_nl,
    least_squares_levels,
    mxfp4,
    nvfp4,
)
from lowrank.eval.inspect.levels import PLACES, normal_distribution
from lowrank.kernels import ops
from lowrank.kernels.weights.codebooks import nf4
from lowrank.kernels.weights.quantized_weight import stored_bytes

ALL = formats()


@pytest.fixture(scope="module")
def w() -> torch.Tensor:
    return torch.randn(64, 512, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("blocksize", BLOCKSIZES)
@pytest.mark.parametrize("nested", [False, True])
def test_nf4_is_the_format_that_is_stored(blocksize: int, nested: bool, w: torch.Tensor) -> None:
    format = ALL[f"{'nf4-dq' if nested else 'nf4'} b{blocksize}"]
    stored = ops.quantize(w, "nf4", blocksize=blocksize, double_quant=nested)
    same = format.apply(w) == ops.dequantize(stored)
    assert same.float().mean() > 0.999  # a division here, a reciprocal there: a weight at a threshold may part
    if blocksize <= 128:  # of larger ones this matrix has too few maxima to fill a block of 256
        assert format.bits == pytest.approx(8 * stored_bytes(stored) / w.numel(), abs=0.003 if nested else 1e-9)


def test_fp4_is_the_format_that_is_stored(w: torch.Tensor) -> None:
    same = ALL["fp4 b64"].apply(w) == ops.dequantize(ops.quantize(w, "fp4"))
    assert same.float().mean() > 0.999


@pytest.mark.parametrize("name", ALL)
def test_every_format_keeps_zeros_shapes_and_is_the_same_twice(name: str, w: torch.Tensor) -> None:
    format = ALL[name]
    once = format.apply(w)
    assert once.shape == w.shape and once.dtype == torch.float32 and torch.isfinite(once).all()
    if "iq4_nl" not in name:  # whose levels have no zero
        assert not format.apply(torch.zeros(3, 40)).any()
    assert 0.001 < float((once - w).square().mean()) < 0.1
    assert 4.0 < format.bits <= 5.0


def test_affine_int4_has_sixteen_even_steps_from_the_least_to_the_largest() -> None:
    w = torch.linspace(-1, 3, 64)[None]
    found = affine_int4(64).apply(w)
    steps = found.unique()
    assert len(steps) == 16 and steps[0] == -1
    assert torch.allclose(steps.diff(), torch.full((15,), 4 / 15), rtol=1e-3)
    assert affine_int4(32).bits == 5.0


def test_the_largest_weight_of_iq4_nl_is_kept_up_to_float16() -> None:
    w = torch.randn(1, 32, generator=torch.Generator().manual_seed(1))
    largest = w.abs().argmax()
    found = iq4_nl().apply(w)
    assert found.flatten()[largest] == pytest.approx(w.flatten()[largest].item(), rel=2**-11)


def test_a_block_of_mxfp4_and_of_nvfp4_by_hand() -> None:
    w = torch.zeros(1, 32)
    w[0, :8] = torch.tensor(E2M1) * 0.5
    assert torch.equal(mxfp4().apply(w), w)  # absmax 3: the scale is 2^(1 - 2)
    w[0, 8] = 0.5 * 5.0  # half way between 4 and 6: to the even code, 4
    assert mxfp4().apply(w)[0, 8] == 0.5 * 4.0
    w = torch.zeros(1, 32)
    w[0, :8], w[0, 16] = torch.tensor(E2M1), 6 * 448.0
    assert torch.equal(nvfp4().apply(w), w)  # the scales are 1 and 448


def test_af4_levels_are_medians_of_their_cells_with_three_fixed() -> None:
    levels = af4_levels(64).double()
    assert (levels[0], levels[7], levels[15]) == (-1, 0, 1) and (levels.diff() > 0).all()
    mass = normal_distribution(64).counts
    cells = torch.bucketize(PLACES, (levels[:-1] + levels[1:]) / 2)
    for cell in (1, 3, 9, 14):
        inside = mass[cells == cell].cumsum(0)
        median = PLACES[cells == cell][torch.searchsorted(inside, inside[-1] / 2)]
        assert levels[cell] == pytest.approx(float(median), abs=2e-3)


def test_levels_for_a_block_size_have_the_least_error_of_their_kind() -> None:
    """On normal weights: AF4 in the mean of |u - q(u)|, least squares in that of (w - Q(w))^2, each beside NF4."""
    w = torch.randn(256, 1024, generator=torch.Generator().manual_seed(2))
    u = (w.view(-1, 64) / w.view(-1, 64).abs().amax(dim=1, keepdim=True)).flatten()

    def mean_distance(levels: torch.Tensor) -> float:
        return float((u[:, None] - levels).abs().amin(dim=1).mean())

    assert mean_distance(af4_levels(64)) < mean_distance(nf4())
    off = {name: float((ALL[name].apply(w) - w).square().sum()) for name in ("nf4 b64", "least squares b64")}
    assert off["least squares b64"] < off["nf4 b64"]
    assert af4_levels(4096)[14] < af4_levels(32)[14]  # the larger the block, the nearer to zero its other weights
    assert least_squares_levels(64)[0] > -1.01


def test_the_error_grows_with_the_block_and_bits_fall() -> None:
    w = torch.randn(256, 1024, generator=torch.Generator().manual_seed(3))
    off = [float((ALL[f"nf4 b{size}"].apply(w) - w).square().mean()) for size in BLOCKSIZES]
    assert off == sorted(off)
    assert [ALL[f"nf4 b{size}"].bits for size in BLOCKSIZES] == [4 + 32 / size for size in BLOCKSIZES]
    assert math.isclose(ALL["nf4-dq b64"].bits, 4.126953125)
