"""The fourteen public names, one of them a module: where completion and help look for them; "embedded" as a path."""

import pydoc
import rlcompleter
from pathlib import Path

import pytest
import torch
from child_process import run_python

import lowrank
from lowrank.cli.flags import in_flags

NAMES = (
    "Grounding", "Tokenizer", "Vocabulary", "add_adapter", "drop_adapter", "generate", "load", "load_adapter",
    "load_tokenizer", "quantize", "save_adapter", "use_adapter", "using_adapter",
)  # fmt: skip


def test_the_public_functions_and_classes_are_these_thirteen() -> None:
    assert tuple(lowrank.__all__) == NAMES


def test_dir_shows_them_before_any_is_imported() -> None:
    code = "import sys, lowrank; print(*dir(lowrank)); print('torch' in sys.modules)"
    shown, has_torch = run_python("-c", code).stdout.splitlines()
    assert {name for name in shown.split() if not name.startswith("_")} == {*NAMES, "inspect"}
    assert has_torch == "False"


def test_tab_completion_shows_them() -> None:
    completer = rlcompleter.Completer({"lowrank": lowrank})
    shown = set()
    while (match := completer.complete("lowrank.", len(shown))) is not None:
        shown.add(match.rstrip("()"))
    assert shown == {f"lowrank.{name}" for name in (*NAMES, "inspect")}


def test_help_describes_each() -> None:
    text = pydoc.render_doc(lowrank, renderer=pydoc.plaintext)
    for name in NAMES:
        is_class = isinstance(getattr(lowrank, name), type)
        assert (f"class {name}(" if is_class else f"    {name}(") in text, name


def test_embedded_is_a_path_in_python_as_on_the_command_line(embedded: Path) -> None:
    by_name, by_path = lowrank.load("embedded", "fp32"), lowrank.load(embedded, "fp32")
    tokens = torch.tensor([lowrank.load_tokenizer("embedded").encode("Revenue rose", bos=True, eos=False)])
    assert torch.equal(by_name(tokens), by_path(tokens))
    assert by_name.source == by_path.source


@pytest.mark.parametrize(
    ("message", "arguments", "shown"),
    [
        ("weights must be one of int8, nf4", ["--weights", "q4"], "--weights must be one of int8, nf4"),
        ("max_new_tokens must be at least 1", ["--max-new-tokens=0"], "--max-new-tokens must be at least 1"),
        ("weights must be one of int8, nf4", ["generate"], "weights must be one of int8, nf4"),
        ("hat: made for the base a, this base is b (force=True to insist)", [],
         "hat: made for the base a, this base is b (--force to insist)"),
    ],
)  # fmt: skip
def test_an_error_of_the_library_names_the_flag_that_was_given(message: str, arguments: list[str], shown: str) -> None:
    assert in_flags(message, arguments) == shown
