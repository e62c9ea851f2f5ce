"""One process that starts those of all submissions that are judged: torch is imported once."""

from collections.abc import Iterator

import pytest

from lowrank.bench.judge.process import Launcher


@pytest.fixture(scope="session")
def launcher() -> Iterator[Launcher]:
    with Launcher() as started:
        yield started
