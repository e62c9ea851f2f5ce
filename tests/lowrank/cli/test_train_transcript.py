"""The transcript of docs/training.md: a run that is killed, resumed, lengthened, and gone on from."""

import json
import re
import shlex
import signal
import sys
import time
from pathlib import Path

import pytest
from child_process import finish, run_python, start

PAGE = Path(__file__).resolve().parents[3] / "docs" / "training.md"
CLI = ("-m", "lowrank")


def transcript() -> tuple[str, list[list[str]]]:
    """(notes.toml, the words of every command) of the page"""
    page = PAGE.read_text(encoding="utf-8")
    (recipe,) = re.findall(r'^```toml title="notes\.toml"\n(.*?)^```', page, re.M | re.S)
    (block,) = re.findall(r"^```console\n(.*?)^```", page, re.M | re.S)
    return recipe, [
        shlex.split(line[2:], comments=True)[1:] for line in block.splitlines() if line.startswith("$ lowrank")
    ]


def record(hat: Path) -> dict[str, object]:
    return json.loads((hat / "lowrank.json").read_text())


@pytest.mark.long
def test_the_transcript_of_the_page(tmp_path: Path) -> None:
    recipe, commands = transcript()
    (tmp_path / "notes.toml").write_text(recipe)
    log = tmp_path / "runs" / "notes" / "train.jsonl"
    first, *others = commands
    child = start(sys.executable, *CLI, *first, cwd=tmp_path)
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and (not log.exists() or log.read_text().count("\n") < 2):
        time.sleep(0.05)
    child.send_signal(signal.SIGTERM)  # SIGINT is ignored by what a shell has started in the background
    stopped = finish(child, check=False)
    assert stopped.returncode == 1
    assert re.search(r"runs/notes: stopped by SIGTERM after \d+ of \d+ steps", stopped.stderr), stopped.stderr
    assert stopped.stderr.rstrip().endswith("lowrank train notes.toml --resume")
    for command in others:
        run_python(*CLI, *command, cwd=tmp_path)
    runs = tmp_path / "runs"
    assert len(record(runs / "notes" / "hat")["phases"]) == 2
    start_of = record(runs / "second" / "hat")["started_from"]
    assert start_of["weights_sha256"] == record(runs / "notes" / "hat")["weights_sha256"]
    (saved,) = (Path(command[-1]) for command in others if command[1] == "--hat-from")
    assert record(tmp_path / saved)["steps"] > 0
