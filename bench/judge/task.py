"""A task: a folder in the form of kernel competitions (GPU MODE's), of which `task.yml` says what is where.

Its `reference.py` has `generate_input(**case, seed)` and `check_implementation(data, output)`. The seeds of `task.yml`
are public: the judge mixes a secret into each, so that no submission has seen its inputs.
"""

import hashlib
import importlib.util
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import Tensor

from lowrank.extras import need

FOLDER = Path(__file__).parent / "tasks"
TEMPLATE = "Python"

Data = tuple[Any, ...]  # tensors and integers; the last tensor is memory for the answer
Case = Mapping[str, Any]  # the arguments of `generate_input`


@dataclass(frozen=True)
class Task:
    """The cases of a task, and the functions of its reference."""

    name: str
    tests: tuple[Case, ...]
    benchmarks: tuple[Case, ...]
    template: Path
    reference: ModuleType

    @property
    def folder(self) -> Path:
        """Where `task.py` and `reference.py` lie: a submission may import the first."""
        return Path(str(self.reference.__file__)).parent

    def inputs(self, case: Case, secret: bytes, call: int) -> Data:
        """The inputs of one call, on the CPU: of a seed that follows from the case's, the secret and the call."""
        drawn = hashlib.sha256(b"%b %d %d" % (secret, case["seed"], call)).digest()
        data = self.reference.generate_input(**{**case, "seed": int.from_bytes(drawn[:7], "little")})
        return tuple(part.cpu() if isinstance(part, Tensor) else part for part in data)

    def check(self, data: Data, answer: Tensor) -> tuple[str, str]:
        """(the rule that the answer breaks, what is wrong), or two times nothing"""
        _, message = self.reference.check_implementation(data, answer)
        rule, _, seen = message.partition(": ")
        return rule, seen


def names() -> list[str]:
    """The tasks that there are."""
    return sorted(path.parent.name for path in FOLDER.glob("*/task.yml"))


def read_task(name: str) -> Task:
    """The task of that name.  Raises ValueError if there is none."""
    if name not in names():
        raise ValueError(f"task must be one of {', '.join(names())}, got {name!r}")
    folder = FOLDER / name
    told = need("yaml", "a task").safe_load((folder / "task.yml").read_text(encoding="utf-8"))
    sources = {file["name"]: folder / file["source"] for file in told["files"]}
    return Task(
        name,
        tuple(told["tests"]),
        tuple(told["benchmarks"]),
        (folder / told["templates"][TEMPLATE]).resolve(),
        _load(sources["reference.py"].resolve()),
    )


def case_name(case: Case) -> str:
    """ "1x4096x11008, blocks of 64, normal" """
    return f"{case['m']}x{case['n']}x{case['k']}, blocks of {case['blocksize']}, {case['kind'].replace('_', ' ')}"


def mixed(now: Data, earlier: Data) -> list[Data]:
    """The inputs that an answer from memory may belong to: earlier weights with x of now, and so on

    Of data (x, codes, absmax, codebook, blocksize, y); none where the shapes differ.
    """
    if [getattr(part, "shape", part) for part in now] != [getattr(part, "shape", part) for part in earlier]:
        return []
    return [earlier, (now[0], *earlier[1:]), (earlier[0], *now[1:])]


def _load(path: Path) -> ModuleType:
    """`reference.py`, which imports the `task.py` beside it by that name."""
    sys.path.insert(0, str(path.parent))
    try:
        spec = importlib.util.spec_from_file_location(f"lowrank_judge_{path.stem}", path)
        assert spec and spec.loader, path
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
