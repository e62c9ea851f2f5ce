"""The instruction sets against the portable one, function by function: those of this processor, and NEON emulated."""

import os
import shutil
import tomllib
from pathlib import Path

import pytest
from child_process import run

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]
CROSS, EMULATOR = "aarch64-linux-gnu-gcc", "qemu-aarch64"


def build(compiler: str, program: Path) -> Path:
    """compare_sets.c with the library, compiled as the package is."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        extension = tomllib.load(file)["tool"]["setuptools"]["ext-modules"][0]
    sources = [ROOT / source for source in extension["sources"]]
    include = [f"-I{ROOT / folder}" for folder in extension["include-dirs"]]
    command = [compiler, *extension["extra-compile-args"], "-Werror", *include]
    own = Path(__file__).with_name("compare_sets.c")
    run(*command, own, *sources, "-o", program, "-lm")
    return program


def compared(*command: str | Path) -> list[str]:
    return run(*command).stdout.split()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("gcc") is None, reason="there is no gcc")
def test_the_sets_of_this_processor_agree(tmp_path: Path) -> None:
    assert compared(build("gcc", tmp_path / "compare_sets"))[-1] == "portable"


@pytest.mark.long
def test_neon_agrees_under_emulation(tmp_path: Path) -> None:
    missing = [tool for tool in (CROSS, EMULATOR) if shutil.which(tool) is None]
    if missing and not os.environ.get("LOWRANK_NEON_REQUIRED"):
        pytest.skip(f"{' and '.join(missing)} not installed (Debian: gcc-aarch64-linux-gnu, qemu-user)")
    assert not missing
    program = build(CROSS, tmp_path / "compare_sets")
    assert compared(EMULATOR, "-L", "/usr/aarch64-linux-gnu", program) == ["neon", "portable"]
