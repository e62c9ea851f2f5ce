"""The page of the kit: its commands run, its table is that of the rules, its Python does what it says."""

import re
import shlex
from pathlib import Path

from lowrank.cli import main
from lowrank.eval.conformance.cases import cases
from lowrank.eval.conformance.rules import RULES

PAGE = (Path(__file__).resolve().parents[3] / "docs/conformance.md").read_text(encoding="utf-8")


def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^lowrank (.*)$", PAGE, re.M)
    assert len(commands) == 3
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert f"keeps all {len(RULES)} rules" in capsys.readouterr().out


def test_the_python_of_the_page_names_a_rule(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", PAGE, re.M | re.S)
    exec(block, {})
    assert "breaks the rule 'rounding-bfloat16'" in capsys.readouterr().out


def test_the_page_has_the_rules_and_the_number_of_cases() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \|$", PAGE.partition("## The rules")[2], re.M)
    assert rows == [(rule.name, rule.says, rule.usually) for rule in RULES]
    assert f"among the {len(cases())};" in PAGE
