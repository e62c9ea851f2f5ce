"""The page of formats: its commands run, one after another."""

import re
import shlex
from pathlib import Path

import pytest

from lowrank.cli import main

PAGE = (Path(__file__).resolve().parents[3] / "docs/formats-beside.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_every_command_of_the_page_runs(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^lowrank (.*)$", PAGE, re.M)
    assert len(commands) == 3
    for command in commands:
        words = shlex.split(command)
        few = ["--n", "2"] if words[0] == "inspect" else []
        assert main(words + few) == 0
    assert "plan.json" in capsys.readouterr().out
