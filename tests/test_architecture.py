"""The house: imports go down only, folders form no circle, no folder of ours is at the top level, the door is light."""

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest
from child_process import run_python

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = {name: f"lowrank.{name}" for name in ("kernels", "model", "train", "eval", "bench")}

# Floor by floor, the upper first: a package may import those of later lines, and its own line in the order written.
# The last word of a dotted name stands for the whole package below it.
FLOORS = (
    ("lowrank.cli",),
    ("lowrank.serve",),
    ("lowrank.workflows",),
    ("lowrank.bench",),
    ("lowrank.writing",),
    ("lowrank.train",),
    ("lowrank.eval",),
    ("lowrank.gguf.export",),
    ("lowrank.adapters", "lowrank.hub"),
    ("lowrank.checkpoints",),
    ("lowrank.layers",),
    ("lowrank.grounding",),
    ("lowrank.data",),
    ("lowrank.gguf",),
    ("lowrank.model", "lowrank.kernels"),
    (
        *("lowrank.atomic_io", "lowrank.cpu_runtime", "lowrank.extras", "lowrank.folder_lock", "lowrank.progress"),
        *("lowrank.text_file", "lowrank.text_table"),
    ),
)
KERNEL_FLOORS = (
    ("lowrank.kernels.ops",),
    ("lowrank.kernels.exact",),
    ("lowrank.kernels.lora", "lowrank.kernels.llama_ops"),
    ("lowrank.kernels.operators",),
    ("lowrank.kernels.dispatch",),
    ("lowrank.kernels.triton", "lowrank.kernels.cpu"),
    ("lowrank.kernels.cuda",),
    ("lowrank.kernels.reference",),
    ("lowrank.kernels.weights",),
)
DOORS = {"lowrank", "lowrank.__main__", "lowrank.inspect"}  # the lazy front doors name rooms of every floor
FILES_ONE_BY_ONE = {
    "lowrank",
    "lowrank.cli",
    "lowrank.data",
    "lowrank.data.documents",
    "lowrank.gguf",
    *FOLDERS.values(),
}


def modules() -> dict[str, Path]:
    """Path of every module of the package, by its dotted name."""
    found = {}
    for folder, package in [("lowrank", "lowrank"), *FOLDERS.items()]:
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join([package, *parts]).removesuffix(".__init__")] = path
    return found


MODULES = modules()
PACKAGES = {name for name, path in MODULES.items() if path.name == "__init__.py"}


def imports(name: str) -> Iterator[str]:
    """Every module of ours that a module imports, anywhere in it."""
    package = name if name in PACKAGES else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(MODULES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "lowrank")
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            start = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            base = ".".join(filter(None, [start, node.module]))
            if base.split(".")[0] == "lowrank":
                for alias in node.names:
                    inner = f"{base}.{alias.name}"
                    yield inner if inner in MODULES else base


def floor(name: str, floors: tuple[tuple[str, ...], ...]) -> tuple[int, str] | None:
    """The number of the floor of a module and the package that stands for it: the longest that fits."""
    found = [
        (number, package)
        for number, packages in enumerate(floors)
        for package in packages
        if f"{name}.".startswith(f"{package}.")
    ]
    return max(found, key=lambda entry: len(entry[1])) if found else None


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(MODULES.keys() - DOORS))
def test_imports_go_down_only(name: str) -> None:
    for floors in (FLOORS, KERNEL_FLOORS):
        here = floor(name, floors)
        assert here or floors is KERNEL_FLOORS, f"{name} is on no floor"
        for target in imports(name):
            there = floor(target, floors)
            if here and there and here[1] != there[1]:
                assert there[0] > here[0], f"{name} imports {target}, which is not below it"


def folder(name: str) -> str:
    """The folder of a module; a file that lies directly in a large package counts by itself."""
    if name in PACKAGES:
        return name
    parent = name.rpartition(".")[0]
    return name if parent in FILES_ONE_BY_ONE else parent


@pytest.mark.slow
def test_folders_import_each_other_in_no_circle() -> None:
    graph: dict[str, set[str]] = {}
    for name in MODULES.keys() - DOORS:
        graph.setdefault(folder(name), set()).update(map(folder, imports(name)))
    below: dict[str, set[str]] = {}

    def reach(start: str) -> set[str]:
        seen: set[str] = set()
        todo = list(graph.get(start, ()) - {start})
        while todo:
            here = todo.pop()
            if here not in seen:
                seen.add(here)
                todo += graph.get(here, ())
        return seen

    below = {name: reach(name) for name in graph}
    circles = sorted(name for name, reached in below.items() if name in reached)
    assert not circles, f"circles among {circles}"


def test_the_floor_test_sees_an_import_that_goes_up() -> None:
    assert {"lowrank.model.llama", "lowrank.adapters", "lowrank.train.step"} <= set(imports("lowrank.train.trainer"))
    trainer, adapters = floor("lowrank.train.trainer", FLOORS), floor("lowrank.adapters.files", FLOORS)
    assert trainer and adapters and trainer[0] < adapters[0]


@pytest.mark.parametrize("name", FOLDERS)
def test_no_folder_is_importable_at_the_top_level(name: str) -> None:
    assert importlib.util.find_spec(name) is None


@pytest.mark.slow
def test_importing_the_package_and_its_parser_imports_no_torch() -> None:
    code = "import sys, lowrank, lowrank.cli; lowrank.cli.build_parser(); print('torch' in sys.modules)"
    assert run_python("-c", code).stdout.strip() == "False"


def test_every_public_name_is_where_the_door_says() -> None:
    import lowrank

    for name in lowrank.__all__:
        assert callable(getattr(lowrank, name))
    with pytest.raises(AttributeError, match="no attribute 'lora'"):
        lowrank.__getattr__("lora")
