"""The worked examples of CONTRIBUTING.md: each block with a file name is run as if that file had it."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
import torch

from lowrank import cli
from lowrank.kernels.dispatch import table
from lowrank.kernels.weights.quantized_weight import Blockwise4bit

PAGE = (Path(__file__).resolve().parent.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r'^```\w+ title="([^"]+)"\n(.*?)^```', PAGE, re.M | re.S))


def run_block(file: str, name: str) -> ModuleType:
    """The block of a file as a module of this name."""
    module = ModuleType(name)
    module.__package__ = name.rpartition(".")[0]
    exec(compile(BLOCKS[file], f"CONTRIBUTING.md, {file}", "exec"), vars(module))
    return module


def example_tests(file: str) -> dict[str, object]:
    """The test functions of a block, by name."""
    tests = {name: value for name, value in vars(run_block(file, "example")).items() if name.startswith("test_")}
    assert tests
    return tests


@pytest.fixture
def one_row(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The kernel of the page in the table, above all others."""
    monkeypatch.setitem(sys.modules, "lowrank.kernels.cpu.one_row", run_block("kernels/cpu/one_row.py", "one_row"))
    names = dict(vars(table))
    exec(compile(BLOCKS["kernels/dispatch/table.py"], "CONTRIBUTING.md, kernels/dispatch/table.py", "exec"), names)
    monkeypatch.setattr(table, "TABLE", (names["ONE_ROW"], *table.TABLE))
    caches = (table.choose, table.choice_reason)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


def test_the_kernel_is_chosen_for_one_row_and_is_exact_enough(one_row: None) -> None:
    case = table.Case(table.FORWARD, 1, 1024, 256, torch.float32, torch.device("cpu"), "nf4", Blockwise4bit)
    assert table.choose(case).name == "one row"
    assert table.choose(case._replace(m=2)).name != "one row"
    assert "the kernel takes one row, x has 2" in table.choice_reason(case._replace(m=2))
    for test in example_tests("tests/kernels/cpu/test_one_row.py").values():
        test()


def test_the_kind_is_read_and_its_documents_state_their_facts(tmp_path: Path) -> None:
    path = tmp_path / "deposit_note.toml"
    path.write_text(BLOCKS["lowrank/data/documents/kinds/deposit_note.toml"], encoding="utf-8")
    for test in example_tests("tests/lowrank/data/documents/test_deposit_note.py").values():
        test(path)


def test_the_verb_prints_and_refuses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    levels = run_block("lowrank/cli/levels.py", "lowrank.cli.levels")
    monkeypatch.setitem(sys.modules, "lowrank.cli.levels", levels)
    monkeypatch.setattr(cli, "VERBS", (*cli.VERBS, "levels"))
    for test in example_tests("tests/lowrank/cli/test_levels.py").values():
        test(capsys)


def test_every_lane_of_the_page_is_a_target_of_the_makefile() -> None:
    makefile = (Path(__file__).resolve().parent.parent / "Makefile").read_text(encoding="utf-8")
    lanes = re.findall(r"^\| `make ([\w-]+)` \|", PAGE, re.M)
    assert {"check", "test", "sanitize", "test-machines", "test-python"} <= set(lanes)
    assert set(lanes) <= set(re.findall(r"^([\w-]+):", makefile, re.M))


def test_every_file_that_the_page_links_to_is_there() -> None:
    root = Path(__file__).resolve().parent.parent
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert links and [link for link in links if not (root / link).exists()] == []
