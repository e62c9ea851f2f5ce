"""Where the two paths of a product cross: told from times, and measured on what the table has."""

import pytest
import torch

from lowrank.bench import crossover
from lowrank.kernels import dispatch


@pytest.mark.parametrize(
    ("many", "m"),
    [((9, 9, 1), 64), ((1, 1, 1), 16), ((2, 2, 2), 16), ((1, 9, 1), 64), ((9, 9, 9), 65)],
    ids=["at-the-end", "always", "a-draw", "for-good", "never"],
)
def test_the_least_number_of_rows_from_which_on_many_is_never_slower(many: tuple[int, ...], m: int) -> None:
    assert crossover.first_as_fast((2, 2, 2), many, (16, 32, 64)) == m


@pytest.mark.parametrize("format", crossover.FORMATS)
def test_what_is_timed_are_the_two_paths_of_the_table(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = crossover.ops.quantize(torch.eye(64), format)
    x, timed = torch.eye(64), []
    for path in dispatch.TABLE:
        monkeypatch.setitem(path.__dict__, "run", lambda x, weight, path=path: timed.append((path.op, path.name)))
    for few_rows in (True, False):
        crossover._product(x, weight, few_rows)()
    assert timed == [("linear forward", "Triton int8"), ("linear forward", "scratch + GEMM")]


def test_times_are_summed_over_the_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossover, "SHAPES", ((64, 64), (128, 64)))
    monkeypatch.setattr(crossover, "_product", lambda x, weight, few_rows: (len(x), weight.shape[0], few_rows))
    # Few rows take M, many a hundred; on the larger weight both take twice as long.
    found = crossover.measure(
        "int8", torch.float32, torch.device("cpu"), lambda case: (case[0] if case[2] else 100) * case[1] / 64
    )
    assert found == 128
