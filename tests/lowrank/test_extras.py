"""A library of an extra: there, missing, or broken inside; and the table of them."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from lowrank.extras import EXTRAS, need

ROOT = next(folder for folder in Path(__file__).resolve().parents if (folder / "pyproject.toml").exists())
OF_DEVELOPERS = {"test", "docs"}


def test_a_library_that_is_there_is_given() -> None:
    assert need("json.decoder", "this").JSONDecoder


def test_one_that_is_missing_is_told_in_one_line_with_how_to_get_it() -> None:
    with pytest.raises(ValueError, match=r"^this: nowhere is missing: pip install nowhere$"):
        need("nowhere.at.all", "this")


@pytest.mark.parametrize("asked", ["sklearn.metrics", "outer"])
def test_a_library_of_the_table_is_asked_for_under_its_name_at_the_registry(
    monkeypatch: pytest.MonkeyPatch, asked
) -> None:
    def fail(name):
        raise ModuleNotFoundError("No module named 'sklearn'", name="sklearn")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ValueError, match=r"^this: sklearn is missing: pip install scikit-learn$"):
        need(asked, "this")


def test_one_that_lacks_something_itself_is_another_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name):
        raise ModuleNotFoundError("No module named 'inner'", name="inner")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        need("outer", "this")


def test_an_installation_that_is_broken_is_not_said_to_be_missing() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"pyarrow\.no_such"):
        need("pyarrow.no_such", "this")


def test_the_table_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = {
        extra: [re.match(r"[\w-]+", requirement)[0] for requirement in requirements]
        for extra, requirements in project["optional-dependencies"].items()
        if extra not in OF_DEVELOPERS
    }
    assert {extra: [library.package for library in libraries] for extra, libraries in EXTRAS.items()} == asked
