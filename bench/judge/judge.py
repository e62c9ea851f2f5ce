"""A submission's verdict: every rule at the cases of a task, then its time beside our kernel's and plain torch's.

Truth is computed here, after the answer has been taken: while a submission runs there is no answer to be read.
"""

import math
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch

from lowrank.atomic_io import sha256_of

from .. import machine
from ..rows import Row
from ..timing import COLD_BYTES, paired_ratio, summarize
from .arena import unwritten
from .process import Answer, Launcher, Worker
from .rules import BY_NAME, RuleBroken
from .task import Case, Data, Task, case_name, mixed, read_task

CALLS = 2  # at each test case: what is kept from the first is wrong at the second
WARM_CALLS = 2  # at each timed case
KEPT = 2  # earlier inputs of a case, in which the owner of a wrong answer is looked for
ROUND_TRIPS = 20
THEIRS, OURS, PLAIN = "submission", "ours", "plain torch"


@dataclass
class Judgement:
    """The end of a submission: the rule that it broke, if any, and a row for each side at each timed case."""

    submission: str
    task: str
    calls: int = 0
    rule: str = ""
    seen: str = ""
    case: str = ""
    rows: list[Row] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """No rule was broken."""
        return not self.rule

    def sentence(self) -> str:
        """The verdict in words."""
        if self.passed:
            return f"{self.submission}: all {self.calls} calls of {self.task} are right"
        rule = BY_NAME[self.rule]
        where = f" at {self.case}" if self.case else ""
        return (
            f"{self.submission}: refused, it breaks the rule {self.rule!r}{where}: {self.seen}. The rule: {rule.says}. "
            f"Usually: {rule.usually}"
        )

    def to_json(self) -> dict[str, Any]:
        """Every figure."""
        return {"passed": self.passed, "verdict": self.sentence(), **asdict(self)}


def judge(
    submission: Path,
    task: str = "nf4-gemv",
    *,
    threads: int = 1,
    repetitions: int = 20,
    limit: float = 60.0,
    launcher: Launcher | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> Judgement:
    """Judges a file in Python with `custom_kernel(data)`, or a shared library with the function of nf4_linear.h.

    repetitions  of each timed case; with 0 nothing is timed
    limit        seconds that a call may take
    launcher     to start its process with, in place of one of its own
    Raises ValueError for another task, a file of another kind, or one without the function.
    """
    known = read_task(task)
    check_file(submission)
    run = _Run(known, Judgement(str(submission), task), tell)
    with ExitStack() as stack:
        cores = machine.first_cores(threads) if repetitions else None
        starting = launcher or stack.enter_context(Launcher(cores))

        def started(path: Path) -> Worker:
            worker = Worker(starting, path.resolve(), known.folder, threads=threads, limit=limit)
            stack.enter_context(worker).load()
            return worker

        try:
            theirs = started(submission)
            run.test(theirs)
            if repetitions:
                others = {OURS: started(Path(__file__).with_name("ours.py")), PLAIN: started(known.template)}
                run.time({THEIRS: theirs, **others}, threads, repetitions)
        except RuleBroken as broken:
            run.judgement.rule, run.judgement.seen, run.judgement.rows = broken.rule, broken.seen, []
    return run.judgement


def check_file(submission: Path) -> None:
    """Raises ValueError for what is no file in Python and no shared library, or is not there."""
    if not submission.is_file():
        raise ValueError(f"{submission}: no such file")
    if submission.suffix in (".c", ".cc", ".cpp", ".cu", ".rs"):
        raise ValueError(f"{submission}: is source: compile it into a shared library (.so) first")
    if submission.suffix not in (".py", ".so"):
        raise ValueError(f"{submission}: must be a file in Python (.py) or a shared library (.so)")


class _Run:
    """One submission on its way through the cases of a task."""

    def __init__(self, task: Task, judgement: Judgement, tell: Callable[[str], None]) -> None:
        self._task, self.judgement, self._tell = task, judgement, tell
        self._secret = secrets.token_bytes(16)
        self._call = 0
        self._earlier: list[Data] = []

    def test(self, worker: Worker) -> None:
        """CALLS calls at each test case. What goes on after a call is looked for behind the first and the last."""
        for case in self._task.tests:
            self._begin(case, [worker])
            for _ in range(CALLS):
                data = self._inputs(case)
                self._examine(worker, data, worker.call(data))
                if self.judgement.calls == 1:
                    worker.check_rest()
        worker.check_rest()
        self._tell(f"{self.judgement.calls} test calls are right")

    def time(self, sides: Mapping[str, Worker], threads: int, repetitions: int) -> None:
        """Every timed case: new inputs a repetition, the same for all sides, which take turns at them

        The submission's answer is looked at in every repetition, those of the others in the first, which do not count.
        """
        flush = ColdMemory(cold_bytes())
        trips = [1e3 * sides[OURS].round_trip() for _ in range(ROUND_TRIPS)]
        about = self._about(threads) | {"round_trip_ms": summarize(trips).ms}
        names = list(sides)
        for case in self._task.benchmarks:
            self._begin(case, list(sides.values()))
            meter = machine.LoadMeter()
            samples: dict[str, list[float]] = {name: [] for name in names}
            for repetition in range(-WARM_CALLS, repetitions):
                data, first = self._inputs(case), repetition % len(names)
                answers = {name: sides[name].call(data, flush) for name in names[first:] + names[:first]}
                self._examine(sides[THEIRS], data, answers[THEIRS])
                if repetition < 0:
                    for name in (OURS, PLAIN):
                        assert self._task.check(data, answers[name].y) == ("", ""), (name, case)
                else:
                    for name in names:
                        samples[name].append(1e3 * answers[name].seconds)
            self.judgement.rows += _rows(case, samples, about, meter.load())
            self._tell(f"{self.judgement.case}: {repetitions} timed calls are right")
        self.judgement.case = ""
        sides[THEIRS].check_rest()

    def _begin(self, case: Case, workers: Sequence[Worker]) -> None:
        self.judgement.case, self._earlier = case_name(case), []
        data = self._inputs(case)
        for worker in workers:
            worker.lay_out(data)

    def _inputs(self, case: Case) -> Data:
        self._call += 1
        return self._task.inputs(case, self._secret, self._call)

    def _examine(self, worker: Worker, data: Data, answer: Answer) -> None:
        """Raises RuleBroken for an answer that is not right, with the rule that says most about why."""
        for rule, seen in (worker.arena.fault(), self._why_wrong(worker, data, answer)):
            if rule:
                raise RuleBroken(rule, seen)
        self.judgement.calls += 1
        self._earlier = [*self._earlier, data][-KEPT:]

    def _why_wrong(self, worker: Worker, data: Data, answer: Answer) -> tuple[str, str]:
        missing = unwritten(answer.y)
        rule, seen = (
            ("complete", f"{missing} of {answer.y.numel()} numbers of y were not written")
            if missing
            else (self._task.check(data, answer.y))
        )
        if not rule:
            return "", ""
        if worker.changes_later(answer):
            return "at-rest", "y was written after the call had returned"
        for earlier in self._earlier:
            for other in mixed(data, earlier):
                if self._task.check(other, answer.y) == ("", ""):
                    return "fresh", "y is that of an earlier call's inputs"
        return rule, seen

    def _about(self, threads: int) -> Row:
        path = Path(self.judgement.submission)
        return {
            "bench": "judge",
            "task": self._task.name,
            "submission": path.name,
            "sha256": sha256_of(path),
            "threads": threads,
            "machine": machine.name(torch.device("cpu")),
            "versions": machine.versions(["torch", "numpy"]),
            "commit": machine.commit(),
            "source": machine.source(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
        }


class ColdMemory:
    """Drives what was just written out of the caches, by reading other memory."""

    def __init__(self, size: float) -> None:
        self._other = numpy.ones(math.ceil(size / 8))

    def __call__(self) -> None:
        self._other.sum()


def cold_bytes() -> float:
    """150 MB, or twice the last-level cache: what `timing.rotations` walks through."""
    return max(COLD_BYTES, 2 * machine.cache_bytes(torch.device("cpu")))


def _rows(case: Case, samples: Mapping[str, list[float]], about: Row, load: machine.Load) -> list[Row]:
    found = []
    for name, taken in samples.items():
        row: Row = {"provider": name, "M": case["m"], "N": case["n"], "K": case["k"], "blocksize": case["blocksize"]}
        row |= asdict(summarize(taken))
        row["over"] = {other: asdict(paired_ratio(samples[other], taken)) for other in (OURS, PLAIN) if other != name}
        row["load"] = {"before": load.average_before, "after": load.average_after, "steal": load.steal}
        found.append(about | row)
    return found
