"""The task: its checker by hand and beside the reference of the kernels, and the form that competitions read."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lowrank.bench.judge.task import FOLDER, case_name, names, read_task
from lowrank.kernels.reference import weights as reference
from lowrank.kernels.weights.codebooks import nf4
from lowrank.kernels.weights.quantized_weight import Blockwise4bit

TASK = read_task("nf4-linear")
SHAPES = {"m": 2, "n": 520, "k": 128, "blocksize": 64, "seed": 1}


def inputs(**changes: Any) -> tuple[Any, ...]:
    return TASK.inputs({**SHAPES, "kind": "normal", **changes}, b"secret", 0)


@pytest.mark.parametrize("k", [128, 96, 77])
def test_the_reference_of_the_task_is_that_of_the_kernels(k: int) -> None:
    x, codes, absmax, codebook, blocksize, y = data = inputs(k=k, kind="one_hot")
    assert torch.equal(codebook, nf4())
    weight = Blockwise4bit(codes, absmax, "nf4", blocksize, (y.shape[1], k))
    assert torch.equal(TASK.reference.dequantize(data), reference.dequantize_4bit(weight))
    assert torch.equal(TASK.reference.ref_kernel(data), x @ reference.dequantize_4bit(weight).T)


@pytest.mark.parametrize("kind", ["normal", "one_hot", "small_integers"])
@pytest.mark.parametrize("n", [520, 9])
def test_the_plain_product_is_right(kind: str, n: int) -> None:
    data = inputs(kind=kind, n=n)
    assert TASK.check(data, TASK.reference.ref_kernel(data)) == ("", "")


@pytest.mark.parametrize(
    ("kind", "k", "rule"),
    [
        ("one_hot", 128, "one-hot"),
        ("one_hot", 96, "one-hot-straddling"),
        ("small_integers", 128, "exact-sums"),
        ("normal", 128, "product"),
    ],
)
@pytest.mark.parametrize("n", [520, 9])
def test_one_wrong_number_breaks_the_rule_of_its_kind(kind: str, k: int, rule: str, n: int) -> None:
    data = inputs(kind=kind, k=k, n=n)
    y = TASK.reference.ref_kernel(data)
    at = y.isfinite().nonzero()[-1].tolist()
    y[tuple(at)] += 1e-3 * y[y.isfinite()].abs().max()
    found, seen = TASK.check(data, y)
    assert found == rule and f"1 of {y.numel()}" in seen


def test_what_is_not_finite_must_show_and_nothing_else() -> None:
    data = inputs()
    y = TASK.reference.ref_kernel(data)
    hidden = y.isnan()
    assert hidden.any(dim=0).sum() == 1  # one row of W has a block of an infinite maximum, where x is zero
    for wrong in (y.nan_to_num(), torch.where(hidden, y, torch.inf)):
        assert TASK.check(data, wrong)[0] == "not-finite"
    assert TASK.check(data, torch.where(hidden, torch.inf, y)) == ("", "")  # scaled by blocks it may be infinite


def test_sums_of_sixteen_bits_are_refused() -> None:
    data = inputs()
    short = (data[0].bfloat16() @ TASK.reference.dequantize(data).bfloat16().T).float()
    assert TASK.check(data, short)[0] == "product"


@pytest.mark.parametrize("name", names())
def test_a_task_is_in_the_form_of_competitions(name: str) -> None:
    folder = FOLDER / name
    told = yaml.safe_load((folder / "task.yml").read_text())
    assert told.keys() >= {"files", "lang", "description", "config", "tests", "benchmarks", "ranking_by"}
    sources = {file["name"]: file["source"] for file in told["files"]}
    assert sources["submission.py"] == "@SUBMISSION@"
    assert all((folder / sources[file]).is_file() for file in ("task.py", "reference.py"))
    # Their evaluators read a case as words: names and integers.
    for case in (*told["tests"], *told["benchmarks"]):
        assert all(isinstance(value, int) or value.isidentifier() for value in case.values())
        assert case["kind"] in case_name(case).replace(" ", "_")
    seeds = [case["seed"] for case in (*told["tests"], *told["benchmarks"])]
    assert len(set(seeds)) == len(seeds)


def test_the_files_of_a_task_need_torch_alone() -> None:
    for path in Path(FOLDER).rglob("*.py"):
        imported = {line.split()[1].split(".")[0] for line in path.read_text().splitlines() if _imports(line)}
        assert imported <= {"torch", "task", "typing"}, path


def _imports(line: str) -> bool:
    return line.startswith(("import ", "from "))
