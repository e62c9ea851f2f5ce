"""Ways to be fast without being right, or to seem fast: none passes, and the verdict names the rule that it breaks.

Each is a file in `cheats`. The table of the page says which rule that is.
"""

import re
from pathlib import Path

import pytest

from lowrank.bench.judge.judge import judge
from lowrank.bench.judge.process import Launcher
from lowrank.bench.judge.rules import BY_NAME, RULES

CHEATS = Path(__file__).parent / "cheats"
HELPER = "nf4"
PAGE = (Path(__file__).resolve().parents[3] / "docs/bench-judge.md").read_text(encoding="utf-8")
REFUSED = dict(re.findall(r"^\| `(\w+)`: .*? \| `([\w-]+)` \|", PAGE, re.M))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_cheat_is_refused_by_the_rule_that_it_breaks(name: str, launcher: Launcher) -> None:
    found = judge(CHEATS / f"{name}.py", "nf4-gemv", repetitions=0, limit=20, launcher=launcher)
    assert found.rule == REFUSED[name], found.sentence()
    assert not found.passed and BY_NAME[found.rule].says in found.sentence()


def test_every_cheat_is_on_the_page() -> None:
    assert {path.stem for path in CHEATS.glob("*.py")} == {*REFUSED, HELPER} and len(REFUSED) >= 10


def test_the_page_has_the_rules() -> None:
    rows = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \|$", PAGE.partition("## The rules")[2], re.M)
    assert rows[: len(RULES)] == [(rule.name, rule.says, rule.usually) for rule in RULES]
