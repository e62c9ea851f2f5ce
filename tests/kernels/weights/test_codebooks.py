"""The levels: bitsandbytes' to the bit, and where they come from."""

import hashlib
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from lowrank.kernels.reference.weights import nearest_code
from lowrank.kernels.weights.codebooks import (
    CODEBOOKS,
    NF4_LEVELS,
    ZERO_CODES,
    dynamic8,
    dynamic8_unsigned,
    fp4,
    nf4,
    nf4_from_quantiles,
)

# dQuantizeNF4 in bitsandbytes' CUDA source.
NF4_THRESHOLDS = (
    -0.8480964004993439,
    -0.6106329262256622,
    -0.4599952697753906,
    -0.33967943489551544,
    -0.23460740596055984,
    -0.13791173323988914,
    -0.045525018125772476,
    0.03979014977812767,
    0.1202552504837513,
    0.2035212516784668,
    0.2920137718319893,
    0.3893125355243683,
    0.5016634166240692,
    0.6427869200706482,
    0.8614784181118011,
)


@pytest.mark.parametrize(
    ("levels", "stored"),
    [(nf4, "nf4.code"), (fp4, "fp4.code"), (dynamic8, "normal.nf4.b64.dq.nested_code")],
    ids=["nf4", "fp4", "dynamic8"],
)
def test_levels_are_those_of_bitsandbytes(levels, stored: str, vectors: dict[str, Tensor]) -> None:
    assert levels().dtype == torch.float32
    assert torch.equal(levels().view(torch.int32), vectors[stored].view(torch.int32))


def test_nf4_levels_are_normal_quantiles_but_for_the_single_precision_in_which_they_were_computed() -> None:
    # A probability rounded to float32 is off by 2^-25, its quantile by that / density(1.85), 14 times as much. Scaled
    # by 1.85 and taken twice, for numerator and denominator, that is 15 * 2^-25, and 2^-25 is left for the rest.
    for computed, published in zip(nf4_from_quantiles(), NF4_LEVELS, strict=True):
        assert abs(computed - published) <= 2**-21
    assert {nf4_from_quantiles()[i] for i in (0, 7, 15)} == {-1.0, 0.0, 1.0}


def test_nf4_thresholds_are_the_midpoints_and_a_tie_goes_to_the_lower_level() -> None:
    thresholds = torch.tensor(NF4_THRESHOLDS)
    lower = torch.arange(15, dtype=torch.uint8)
    assert torch.equal((nf4()[:-1] + nf4()[1:]) / 2, thresholds)
    assert torch.equal(nearest_code(thresholds, nf4()), lower)
    assert torch.equal(nearest_code(thresholds.nextafter(torch.tensor(2.0)), nf4()), lower + 1)


@pytest.mark.parametrize("levels", [nf4, dynamic8])
def test_a_level_is_nearest_to_itself(levels) -> None:
    assert torch.equal(nearest_code(levels(), levels()).int(), torch.arange(len(levels()), dtype=torch.int32))


def test_fp4_is_a_sign_bit_over_eight_magnitudes_and_has_zero_twice() -> None:
    assert torch.equal(fp4()[8:], -fp4()[:8])
    assert torch.equal(nearest_code(fp4(), fp4()), torch.tensor([*range(8), 0, *range(9, 16)], dtype=torch.uint8))


@pytest.mark.parametrize(
    ("levels", "digest"),
    [
        (nf4, "8501941daa1b8a90ad1bbfeb632e5101b5dddbc4bb52d6e55abcfd777e60c06a"),
        (fp4, "b830bcf8857895e5676b8e2ce608a60bb8af9b3ce6270073e9de34814196f09c"),
        (dynamic8, "e732639a65f497b4ad684bb166a4467708255edd5207757de8b8f0c7e1fda89c"),
        (dynamic8_unsigned, "305f002cc11278fb769d13b25b9fd0c7c83c8402c40a878fe086f4039fde6398"),
    ],
)
def test_every_bit_of_the_levels_is_the_same_on_every_processor(levels, digest: str) -> None:
    assert hashlib.sha256(levels().numpy().tobytes()).hexdigest() == digest


@pytest.mark.parametrize(("levels", "finer"), [(dynamic8, 0), (dynamic8_unsigned, 1)], ids=["signed", "unsigned"])
def test_the_8_bit_levels_are_the_midpoints_but_for_the_single_precision_in_which_they_were_computed(
    levels, finer: int
) -> None:
    """Within 2 ulp: half of one for the last product, the rest for the edges, whose step is rounded too."""
    exact = []
    for i in range(7):
        cells = 2 ** (i + finer)
        midpoints = [Fraction(1, 10) + Fraction(9, 10) * Fraction(2 * cell + 1, 2 * cells) for cell in range(cells)]
        exact += [float(Fraction(10) ** (i - 6) * midpoint) for midpoint in midpoints]
    magnitudes = levels()[(levels() > 0) & (levels() < 1)]
    away = magnitudes.view(torch.int32) - torch.tensor(sorted(exact)).view(torch.int32)
    assert away.abs().max() <= 2
    if not finer:
        assert torch.equal(levels()[:127], -magnitudes.flip(0))


def test_the_8_bit_code_ascends_from_just_above_minus_1_to_1() -> None:
    levels = dynamic8()
    assert len(levels) == 256
    assert (levels.diff() > 0).all()
    assert levels[0] > -1
    assert levels[-1] == 1
    assert (levels == 0).sum() == 1


@pytest.mark.parametrize("format", CODEBOOKS)
def test_the_code_of_zero_is_the_one_that_zero_gets(format: str) -> None:
    levels = CODEBOOKS[format]()
    assert levels[ZERO_CODES[format]] == 0
    assert nearest_code(torch.zeros(1), levels).tolist() == [ZERO_CODES[format]]
