"""Runs the notebooks beside it, and writes what they show into them and into pages for the site.

    python docs/notebooks/run.py [NAME ...]     all of them, or those named

A cell's output is what it prints, and the value of its last line. No Jupyter is needed; the notebooks open in one.
"""

import ast
import contextlib
import io
import json
import re
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent


def run(notebook: dict[str, Any], name: str) -> dict[str, Any]:
    """The notebook with the outputs of a run in a namespace of its own; what a cell raises goes on."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    cells, count = [], 0
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            cells.append(cell)
            continue
        count += 1
        tree = ast.parse("".join(cell["source"]))
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        printed, value = io.StringIO(), None
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"{name}, cell {count}", "exec"), namespace)
            if isinstance(last, ast.Expr):
                value = eval(compile(ast.Expression(last.value), f"{name}, cell {count}", "eval"), namespace)
        outputs: list[dict[str, Any]] = []
        if printed.getvalue():
            outputs.append({"name": "stdout", "output_type": "stream", "text": _lines(printed.getvalue())})
        if value is not None:
            data = {"text/plain": _lines(repr(value))}
            outputs.append({"data": data, "execution_count": count, "metadata": {}, "output_type": "execute_result"})
        cells.append({**cell, "execution_count": count, "outputs": outputs})
    return {**notebook, "cells": cells}


def page(notebook: dict[str, Any], name: str) -> str:
    r"""The notebook as Markdown: code, what it showed, and formulas as the site takes them: $x$ becomes \(x\)"""
    parts = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            source = re.sub(r"(?<!\$)\$(?!\$)([^$\n]+)\$(?!\$)", r"\\(\1\\)", source)
            parts.append(re.sub(r"\$\$ (.*?) \$\$", r"$$\n\1\n$$", source))
            continue
        parts.append(f"```python\n{source}\n```")
        for output in cell["outputs"]:
            text = "".join(output["text"] if "text" in output else output["data"]["text/plain"])
            parts.append(f"```text\n{text.rstrip()}\n```")
    written = f"Written by `docs/notebooks/run.py` from [{name}.ipynb]({name}.ipynb), which opens in Jupyter."
    return "\n\n".join([*parts, written]) + "\n"


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)


def main(names: list[str]) -> None:
    """Runs the notebooks of these names, or all, and writes them and their pages."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            done = run(json.loads(path.read_text(encoding="utf-8")), path.name)
            path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            path.with_suffix(".md").write_text(page(done, path.stem), encoding="utf-8")
            print(path.name)


if __name__ == "__main__":
    main(sys.argv[1:])
