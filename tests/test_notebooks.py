"""The notebooks: each runs from top to bottom, shows what is kept in it, and is the page of the site."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.long

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def _runner() -> Any:
    spec = spec_from_file_location("run_notebooks", FOLDER / "run.py")
    assert spec and spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


runner = _runner()


def read(path: Path) -> dict[str, Any]:
    notebook: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notebook


def shown(notebook: dict[str, Any]) -> list[list[str]]:
    """The kinds of outputs of each cell of code."""
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    return [[output["output_type"] for output in cell["outputs"]] for cell in cells]


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3
    site = (FOLDER.parent.parent / "mkdocs.yml").read_text(encoding="utf-8")
    assert all(f"notebooks/{path.stem}.md" in site for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_as_much_as_is_kept_in_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOWRANK_REAL", raising=False)
    kept = read(path)
    assert shown(runner.run(kept, path.name)) == shown(kept)
    assert all(shown(kept)), "a cell that shows nothing"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_one_of_jupyters_and_its_page_is_what_it_holds(path: Path) -> None:
    notebook = read(path)
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    for cell in notebook["cells"]:
        keys = {"cell_type", "id", "metadata", "source"}
        assert cell.keys() == (keys | {"execution_count", "outputs"} if cell["cell_type"] == "code" else keys)
    page = path.with_suffix(".md").read_text(encoding="utf-8")
    assert page == runner.page(notebook, path.stem)
    assert "$$\n" in page and "```text" in page


def test_what_a_cell_raises_ends_the_run() -> None:
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": ["1 / 0"], "execution_count": None, "outputs": []}
    with pytest.raises(ZeroDivisionError):
        runner.run({"cells": [cell]}, "broken")


def test_a_cell_shows_what_it_prints_and_its_last_value() -> None:
    cell = {"cell_type": "code", "id": "a", "metadata": {}, "source": ["print('one')\n", "1 + 1"], "outputs": []}
    (done,) = runner.run({"cells": [cell]}, "both")["cells"]
    assert [output["output_type"] for output in done["outputs"]] == ["stream", "execute_result"]
    text = {"cell_type": "markdown", "id": "b", "metadata": {}, "source": ["a $x$ and\n", "\n", "$$ y $$"]}
    page = runner.page({"cells": [done, text]}, "both")
    assert "```text\none\n```\n\n```text\n2\n```" in page and "a \\(x\\) and\n\n$$\ny\n$$" in page
