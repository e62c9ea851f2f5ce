"""The distribution: its name, and what its wheel is made of."""

import re
from pathlib import Path

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
