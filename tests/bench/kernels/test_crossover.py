"""Where the two paths of a product cross: told from times, and measured on what the table has."""

import pytest
import torch

from lowrank.bench.kernels import crossover
from lowrank.kernels.dispatch import table
from lowrank.kernels.weights.repack import repack


@pytest.mark.parametrize(
    ("many", "m"),
    [((9, 9, 1), 64), ((1, 1, 1), 16), ((2, 2, 2), 16), ((1, 9, 1), 64), ((9, 9, 9), 65)],
    ids=["at-the-end", "always", "a-draw", "for-good", "never"],
)
def test_the_least_number_of_rows_from_which_on_many_is_never_slower(many: tuple[int, ...], m: int) -> None:
    assert crossover.first_as_fast((2, 2, 2), many, (16, 32, 64)) == m


@pytest.mark.parametrize("op", [table.FORWARD, table.BACKWARD])
@pytest.mark.parametrize(
    ("format", "names"),
    [
        ("nf4-dq", {"few": "Triton decode", "fused": "Triton fused", "scratch": "scratch + GEMM"}),
        ("int8", {"few": "Triton int8", "scratch": "scratch + GEMM"}),
    ],
    ids=["nf4-dq", "int8"],
)
def test_what_is_timed_are_the_paths_of_the_table(format, names, op, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = crossover.ops.quantize(torch.eye(64), format)
    weight = repack(weight) if format != "int8" else weight
    for path in table.TABLE:
        monkeypatch.setitem(path.__dict__, "run", lambda x, weight, path=path: (path.op, path.name))
    products = crossover._products(op, torch.eye(64), weight)
    assert {name: run() for name, run in products.items()} == {name: (op, path) for name, path in names.items()}


def times(few: float, fused: float, scratch: float):
    """Milliseconds by path and M: the first two take theirs for each row, scratch the same whatever M is."""
    return {"few": lambda m: few * m, "fused": lambda m: 64 + fused * m, "scratch": lambda m: scratch}


@pytest.mark.parametrize(
    ("paths", "found"),
    [
        (times(4, 1, 300), {"fused": 32, "scratch": 256}),
        (times(4, 9, 300), {"fused": 96, "scratch": 96}),
        ({name: time for name, time in times(4, 0, 300).items() if name != "fused"}, {"fused": 96, "scratch": 96}),
        (times(4, 0, 9), {"fused": 16, "scratch": 16}),
    ],
    ids=["three", "fused-never", "two", "scratch-always"],
)
def test_the_two_crossovers(paths, found, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crossover, "SHAPES", ((64, 64), (128, 64)))
    monkeypatch.setattr(
        crossover,
        "_products",
        lambda op, x, weight: {name: (time, len(x), weight.shape[0]) for name, time in paths.items()},
    )

    def stopwatch(call) -> float:
        time, m, n = call
        return time(m) * n / 64  # the larger weight takes twice as long

    cpu = torch.device("cpu")
    assert crossover.measure("nf4", table.FORWARD, torch.float32, cpu, stopwatch) == found
