"""A library of an extra: there, missing, or broken inside."""

import importlib

import pytest

from lowrank.extras import need


def test_a_library_that_is_there_is_given():
    assert need("json.decoder", "eval", "this").JSONDecoder


def test_one_that_is_missing_is_told_in_one_line_with_its_extra():
    with pytest.raises(ValueError, match=r"^this: nowhere is missing: needs pip install 'lowrank\[eval\]'$"):
        need("nowhere.at.all", "eval", "this")


def test_one_that_lacks_something_itself_is_another_matter(monkeypatch):
    def fail(name):
        raise ModuleNotFoundError("No module named 'inner'", name="inner")

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(ModuleNotFoundError):
        need("outer", "eval", "this")
