"""The files of a sweep that is done: results.json, and the page."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from lowrank.atomic_io import write_json, write_text

from ..data import RunData
from ..monitor import read_rows
from ..resume.folder import HELD_OUT, LOG
from .axes import Sweep
from .page import render
from .results import AdapterLoss, differences, loss, smallest_rank
from .run import PAGE, RESULTS, SweptAdapter

Trained = tuple[Sequence[SweptAdapter], Sequence[Sequence[float]], dict[str, Any]]


def write_results(sweep: Sweep, data: RunData, trained: Trained, margin: float) -> dict[str, Any]:
    """Compares the hats of `run.train_together`, writes both files, and returns what results.json holds."""
    adapters, nats, figures = trained
    tokens = [example.supervised for example in data.held_out]
    done = [
        AdapterLoss(adapter.point.name, adapter.point.values, nats_of_one)
        for adapter, nats_of_one in zip(adapters, nats, strict=True)
        if not adapter.failed
    ]
    points = []
    for adapter, nats_of_one, parameters in zip(adapters, nats, figures["parameters"], strict=True):
        losses = [row["loss"] for row in adapter.run.log if row["loss"] is not None]
        points.append(
            {
                "name": adapter.point.name,
                "values": dict(adapter.point.values),
                "folder": str(adapter.point.out),
                "parameters": parameters,
                "steps": adapter.run.cursor.step,
                "train_loss": fmean(losses[-max(1, len(losses) // 10) :]) if losses else None,
                "held_out_loss": None if adapter.failed else loss([AdapterLoss("", {}, nats_of_one)], tokens),
                "held_out_nats": list(nats_of_one),
                "failed": adapter.failed,
            }
        )
    answer = smallest_rank(done, tokens, sweep.axes, margin)
    results = {
        "axes": {key: list(values) for key, values in sweep.axes.items()},
        "held_out": {"entries": len(tokens), "tokens": tokens, "ids": [example.id for example in data.held_out]},
        "points": points,
        "differences": [one.to_json() for one in differences(done, tokens, sweep.axes)],
        "smallest_rank": None if answer is None else answer.to_json(),
        "seconds": round(figures["seconds"], 3),
        "peak_bytes": figures["peak_bytes"],
    }
    write_json(sweep.out / RESULTS, results)
    logs = {adapter.point.name: read_rows(adapter.point.out / LOG) for adapter in adapters}
    measured = {adapter.point.name: read_rows(adapter.point.out / HELD_OUT) for adapter in adapters}
    write_text(sweep.out / PAGE, render(results, logs, measured))
    return results
