"""The house: imports go down only, nothing of ours sits at the top level, and the front door is light."""

import ast
import importlib.util
from pathlib import Path

import pytest
from child_process import run_python

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {name: f"lowrank.{name}" for name in ("kernels", "model", "train", "eval", "bench")}

# Package -> the packages of ours that it may import from, besides itself.
MAY_IMPORT = {
    "lowrank.kernels": set(),
    "lowrank.model": set(),
    "lowrank": {"lowrank.kernels", "lowrank.model"},
    "lowrank.eval": {"lowrank", "lowrank.kernels", "lowrank.model"},
    "lowrank.train": {"lowrank", "lowrank.kernels", "lowrank.model", "lowrank.eval"},
    "lowrank.bench": {"lowrank", "lowrank.kernels", "lowrank.model", "lowrank.eval", "lowrank.train"},
}


def modules():
    """(dotted name, path) of every module of the package."""
    for folder, package in [("lowrank", "lowrank"), *FOLDERS.items()]:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield ".".join([package, *path.relative_to(ROOT / folder).with_suffix("").parts]), path


def package_of(name):
    """The room of the house that a dotted name belongs to: the deepest of MAY_IMPORT; the front door is its own."""
    if name.startswith(("lowrank.cli", "lowrank.quickstart", "lowrank.reproduce", "lowrank.__main__")):
        return "front door"
    return max((package for package in MAY_IMPORT if f"{name}.".startswith(f"{package}.")), key=len)


def imported_names(name, path):
    """Every module of ours that a file imports, relative imports resolved."""
    package = name if path.stem == "__init__" else name.rpartition(".")[0]
    package = package.removesuffix(".__init__")
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "lowrank")
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                parts = package.split(".")
                base = ".".join(parts[: len(parts) - node.level + 1])
                yield ".".join(filter(None, [base, node.module]))
            elif node.module and node.module.split(".")[0] == "lowrank":
                yield node.module


@pytest.mark.parametrize(("name", "path"), [pytest.param(*module, id=module[0]) for module in modules()])
def test_imports_go_down_only(name, path):
    here = package_of(name)
    if here == "front door" or name == "lowrank.__init__":  # the lazy door names rooms of every floor
        return
    for target in imported_names(name, path):
        there = package_of(target)
        assert there == here or there in MAY_IMPORT[here], f"{name} imports {target}"


def test_the_floor_test_sees_an_import_that_goes_up():
    names = set(imported_names("lowrank.train.loop", ROOT / "train" / "loop.py"))
    assert {"lowrank.model.llama", "lowrank.adapters", "lowrank.train.optim"} <= names
    assert package_of("lowrank.train.optim") not in MAY_IMPORT["lowrank"]


@pytest.mark.parametrize("name", FOLDERS)
def test_no_folder_is_importable_at_the_top_level(name):
    assert importlib.util.find_spec(name) is None


@pytest.mark.slow
def test_importing_the_package_and_its_parser_imports_no_torch():
    code = "import sys, lowrank, lowrank.cli; lowrank.cli.build_parser(); print('torch' in sys.modules)"
    assert run_python("-c", code).stdout.strip() == "False"


def test_every_public_name_is_where_the_door_says():
    import lowrank

    for name in lowrank.__all__:
        assert callable(getattr(lowrank, name))
    with pytest.raises(AttributeError, match="no attribute 'lora'"):
        lowrank.__getattr__("lora")
