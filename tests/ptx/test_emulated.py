"""The committed page about the last run of every check by the emulator."""

import runpy
from pathlib import Path

EMULATED = runpy.run_path(str(Path(__file__).parents[1] / "emulated.py"))


def test_the_last_run_of_every_check_is_committed_and_all_passed() -> None:
    told = EMULATED["RESULT"].read_text(encoding="utf-8")
    for check in EMULATED["CHECKS"]:
        assert f"\n| {check} |" in told, "make test-emulated EMULATED=all"
    assert "FAILED" not in told and f"{len(EMULATED['ALL'])} of {len(EMULATED['ALL'])} checks passed" in told
