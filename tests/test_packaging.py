"""The distribution: its name, what its wheel is made of, and whose threads it uses."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
MADE = {"build", "dist", "runs", "results", "__pycache__"}  # folders of what is made, not written
BY_NAME = re.compile(r"\bpip install (?:-\S+ )*['\"]?lowrank")


def written(folder=ROOT):
    """Every file that somebody wrote, hidden folders included, but those of tools (.git, .venv, caches)."""
    for path in sorted(folder.iterdir()):
        tool = path.name == ".git" or path.name.startswith(".venv") or path.name.endswith(("_cache", ".egg-info"))
        if path.is_dir() and not tool and path.name not in MADE:
            yield from written(path)
        elif path.is_file() and not tool:
            yield path


def by_name(text):
    """The advice in a text to install the package by name, line by line."""
    return [line.strip() for line in text.splitlines() if BY_NAME.search(line)]


@pytest.mark.slow
def test_nothing_advises_to_install_the_package_by_name():
    """Another project has the name lowrank at PyPI, and lowrank-llama is not registered."""
    advice = {
        str(path.relative_to(ROOT)): lines
        for path in written()
        if (lines := by_name(path.read_bytes().decode("utf-8", errors="replace")))
    }
    assert not advice


def test_advice_by_name_is_seen_and_a_checkout_or_a_library_is_not():
    for package in ("lowrank", "lowrank-llama", "'lowrank[data]'", '"lowrank[eval,data]"', "-U lowrank"):
        assert by_name(f"run pip install {package} first")
    for package in ("gguf", "-e '.[data]'", "dist/lowrank_llama-0.1.0.whl"):
        assert not by_name(f"run pip install {package} first")


# The wheel: what the tree has, by the rules of the project file. Nothing is compiled.

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
FOLDERS = {Path(folder): Path(*package.split(".")) for package, folder in SETTINGS["package-dir"].items()}
FORGOTTEN = (Path("lowrank/forgotten/__init__.py"), Path("model/forgotten.table"))


def expected(root):
    """Path in the wheel -> path in the tree, of everything in the package's folders but pages for readers."""
    files = {
        package / path.relative_to(root / folder): path
        for folder, package in FOLDERS.items()
        for path in written(root / folder)
    }
    return {name: path for name, path in files.items() if path.name != "README.md" and path.suffix != ".so"}


@pytest.fixture(scope="module")
def packaged(tmp_path_factory):
    """(a copy of the tree with two files that the project file does not name, what setuptools takes from it)."""
    tree, out = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("out")
    for path in written():
        if path.parent == ROOT or path.relative_to(ROOT).parts[0] in map(str, FOLDERS):
            copy = tree / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    for forgotten in FORGOTTEN:
        (tree / forgotten).parent.mkdir(exist_ok=True)
        (tree / forgotten).touch()
    command = [sys.executable, "-W", "ignore", "-c", "import setuptools; setuptools.setup()"]
    done = subprocess.run(
        [*command, "--quiet", "build_py", "--build-lib", str(out)], cwd=tree, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return tree, out


@pytest.mark.slow
def test_every_file_of_the_tree_is_in_the_wheel_and_a_forgotten_one_is_seen(packaged):
    tree, out = packaged
    wanted = expected(tree)
    missing = {wanted[name].relative_to(tree) for name in wanted if not (out / name).exists()}
    assert missing == set(FORGOTTEN)
    assert {".py", ".c", ".h", ".inc", ".toml", ".json", ".jsonl", ".model", ".pth", ".typed"} <= {
        name.suffix for name in wanted
    }


@pytest.mark.slow
def test_nothing_is_in_the_wheel_that_the_tree_does_not_have(packaged):
    tree, out = packaged
    packed, files = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}, expected(tree)
    assert packed <= files.keys()
    assert all((out / name).read_bytes() == files[name].read_bytes() for name in packed)


def test_the_package_of_type_checkers_is_linked_again_after_python_has_imported_it(tmp_path):
    # CI once stopped here: Python had made a __pycache__ among the links, and the sources had one to be linked to.
    (tmp_path / "a tree" / "lowrank" / "data").mkdir(parents=True)
    tree = tmp_path / "a tree"
    shutil.copy(ROOT / "Makefile", tree)
    (tree / "lowrank" / "__init__.py").touch()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    printed = []
    for source in ("build/types", "", "build/types"):
        subprocess.run(["make", "--silent", "types"], cwd=tree, check=True, capture_output=True, env=environment)
        command = [sys.executable, "-P", "-S", "-c", "import lowrank; print(lowrank.__file__)"]
        path = environment | {"PYTHONPATH": str(tree / source)}
        printed.append(subprocess.run(command, env=path, check=True, capture_output=True, text=True).stdout.strip())
    links = tree / "build" / "types" / "lowrank"
    assert printed == [str(links / "__init__.py"), str(tree / "lowrank" / "__init__.py"), str(links / "__init__.py")]
    assert (tree / "lowrank" / "__pycache__").is_dir() and not (links / "__pycache__").is_symlink()
    assert {path.name for path in links.iterdir() if path.is_symlink()} == {
        "__init__.py",
        "data",
        "kernels",
        "model",
        "train",
        "eval",
        "bench",
    }


def test_every_c_file_is_compiled_and_a_change_of_what_it_includes_compiles_it_again():
    extension = SETTINGS["ext-modules"][0]
    files = {str(path.relative_to(ROOT)) for folder in FOLDERS for path in written(ROOT / folder)}
    task = "bench/judge/tasks/nf4-linear"
    # These go along with the kit and the task, and are compiled by whoever uses them.
    files -= {"eval/conformance/grade.c", f"{task}/submission.c", f"{task}/nf4_linear.h"}
    assert set(extension["sources"]) == {name for name in files if name.endswith(".c")}
    assert set(extension["depends"]) == {name for name in files if name.endswith((".h", ".inc"))}


# Threads: the C library asks for an OpenMP runtime, and gets torch's.

LOAD = """
from lowrank.workflows.doctor import openmp_runtimes
from lowrank.kernels.cpu import library
library.library()
print(*openmp_runtimes(), sep="\\n")
"""


def run(code, **environment):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}, cwd="/"
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="what is mapped is read from /proc")
def test_one_openmp_runtime_is_mapped():
    assert len(run(LOAD)) == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="LD_DEBUG is of the GNU C library")
def test_the_openmp_calls_of_the_c_library_are_bound_to_the_runtime_that_torch_calls(tmp_path):
    run(LOAD, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(tmp_path / "log"), LD_BIND_NOW="1")
    look = re.compile(r"binding file (\S+) \[0\] to (\S+) \[0\]: normal symbol `(?:GOMP|omp)_\w+'")
    bound = {}
    for log in tmp_path.iterdir():
        with log.open(encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if found := look.search(line):
                    bound.setdefault(Path(found[1]).name.split(".")[0], set()).add(found[2])
    assert len(bound["_native"]) == 1
    assert bound["_native"] == bound["libtorch_cpu"]
