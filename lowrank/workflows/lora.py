"""LoRA beside full fine-tuning on the embedded base, against what three works say: `lowrank reproduce --lora`

    OUT/runs/, settings.json        every finished run (`lora_runs`)
    OUT/lora.jsonl                  all of them, a line each
    OUT/lora.json, lora.md, .html   best rates, losses, forgetting, intruders, and a verdict on every claim

Run again, it goes on where it was.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..atomic_io import write_json, write_text
from ..bench import machine
from ..bench.rows import Row
from ..eval.metrics.student import T
from .lora_claims import Judged, claims, judge
from .lora_page import METHODS_HEAD, markdown, method_rows, render
from .lora_plan import ALL, ATTENTION, FEW, FULL, LARGE, MANY, MLP, SEEDS, Method, Part, Plan, geometric
from .lora_results import Results
from .lora_runs import run_all

# Found by trying: at the last rate of a grid the loss is worse again, for LoRA at 1.2e-2 because it falls apart.
FULL_RATES, LORA_RATES, LARGE_RATES = geometric(7.5e-4, 2, 4), geometric(1.5e-3, 2, 4), geometric(3e-3, 2, 4)
PLAN = Plan(
    (
        Part(MANY, 32, 8, 20, ((FULL, FULL_RATES), *((method, LORA_RATES) for method in
             (*map(Method, (1, 4, 16, 64)), Method(22, ATTENTION), Method(16, MLP))),
             (Method(64, ALL, 128.0), FULL_RATES))),
        Part(FEW, 8, 8, 50, ((FULL, FULL_RATES), (Method(1), LORA_RATES), (Method(64), LORA_RATES))),
        Part(LARGE, 32, 16, 20, ((FULL, FULL_RATES), (Method(16), LARGE_RATES))),
    ),
    digits=12, kept=8, typical=16,
)  # fmt: skip
SHORT_RATES = (1e-3,)
SHORT = Plan(
    (
        Part(MANY, 4, 2, 1, tuple((method, SHORT_RATES) for method in
             (FULL, Method(1), Method(2), Method(3, ATTENTION), Method(2, MLP), Method(2, ALL, 4.0)))),
        Part(FEW, 2, 2, 2, tuple((method, SHORT_RATES) for method in (FULL, Method(1), Method(2)))),
        Part(LARGE, 4, 4, 1, tuple((method, SHORT_RATES) for method in (FULL, Method(2)))),
    ),
    digits=4, kept=1, typical=2,
)  # fmt: skip


@dataclass(frozen=True)
class Reproduction:
    """All rows, and every claim with its verdict."""

    results: Results
    judged: Sequence[Judged]
    about: dict[str, Any]


def check(out: Path, seeds: int, jobs: int) -> None:
    """Raises ValueError for what could not be run, before anything is."""
    if not 1 <= seeds <= max(T):
        raise ValueError(f"seeds must be 1 to {max(T)}, got {seeds}")
    if jobs < 1:
        raise ValueError(f"jobs must be at least 1, got {jobs}")
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out}: is a file, and out must be a folder")


def reproduce_lora(
    out: Path, *, seeds: int = SEEDS, jobs: int = 1, plan: Plan = PLAN, progress: bool = True
) -> Reproduction:
    """Trains what is missing, and writes the reports into `out`.

    jobs  processes of one thread each
    Raises ValueError for values out of range, and a folder that was begun with other settings; more seeds may follow.
    """
    check(out, seeds, jobs)
    rows = run_all(out, plan, seeds, jobs, progress=progress)
    found = judged(plan, rows)
    write_text(out / "lora.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_json(out / "lora.json", to_json(found))
    write_text(out / "lora.md", markdown(found.results, found.judged, found.about))
    write_text(out / "lora.html", render(found.results, found.judged, found.about))
    return found


def judged(plan: Plan, rows: Sequence[Row]) -> Reproduction:
    """The claims beside the rows."""
    results = Results(plan, rows)
    about = {
        "runs": len(rows),
        "cpu_minutes": round(sum(row["cpu_seconds"] for row in rows) / 60, 1),
        "machine": machine.name(torch.device("cpu")),
        "versions": machine.versions(["torch"]),
        "commit": machine.commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return Reproduction(results, [judge(claim, results) for claim in claims(plan)], about)


def to_json(found: Reproduction) -> dict[str, Any]:
    """Every claim with its range, interval and verdict, and the table of methods; None for what is not known."""
    return {
        "claims": [
            {
                "work": one.claim.work,
                "where": one.claim.where,
                "says": one.claim.says,
                "figure": one.claim.figure,
                "range": [known(one.claim.low), known(one.claim.high)],
                "mean": known(one.interval.difference) if one.interval else None,
                "interval": [known(one.interval.low), known(one.interval.high)] if one.interval else None,
                "verdict": one.verdict,
                "why": one.why,
            }
            for one in found.judged
        ],
        "methods": [dict(zip(METHODS_HEAD, row, strict=True)) for row in method_rows(found.results)],
        **found.about,
    }


def known(value: float) -> float | None:
    """JSON has neither infinity nor NaN."""
    return value if math.isfinite(value) else None
