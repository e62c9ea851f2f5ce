"""docs/math.md: every test that it names is there, one for every operation with a gradient; and its formulas."""

import ast
import re
from html import escape
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "math.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)


@pytest.mark.parametrize(("path", "name"), NAMED, ids=["::".join(one) for one in NAMED])
def test_a_test_that_is_named_exists(path: str, name: str) -> None:
    functions = [node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)]
    assert name in functions


def test_no_test_is_named_in_another_form() -> None:
    assert len(re.findall(r"\btest_\w+\b(?!\.py)", PAGE)) == len(NAMED)


def test_every_section_names_its_tests() -> None:
    sections = re.split(r"^## ", PAGE, flags=re.MULTILINE)[1:]
    assert len(sections) == 12
    for section in sections:
        assert re.search(r"`tests/[\w/]+\.py::\w+`", section), section.splitlines()[0]


def test_every_room_that_is_named_exists() -> None:
    for path in re.findall(r"`(kernels/\w+\.py)`", PAGE):
        assert (ROOT / path).is_file()


def test_every_formula_becomes_mathml() -> None:
    spec = spec_from_file_location("formulas", ROOT / "docs" / "hooks" / "formulas.py")
    assert spec is not None and spec.loader is not None
    hook = module_from_spec(spec)
    spec.loader.exec_module(hook)
    written = re.findall(r"\$\$\n(.*?)\n\$\$", PAGE, flags=re.DOTALL)
    assert len(written) > 20
    for tex in written:
        drawn = hook.on_page_content(f'<div class="arithmatex">\\[{escape(tex)}\\]</div>')
        assert drawn.startswith('<div class="formula"><math') and "arithmatex" not in drawn
    with pytest.raises(AssertionError, match="no MathML for"):
        hook.on_page_content(r'<div class="arithmatex">\[\unknowncommand x\]</div>')
