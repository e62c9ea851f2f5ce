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
from .results import HatLoss, differences, loss, smallest_rank
from .run import PAGE, RESULTS, SweptHat

Trained = tuple[Sequence[SweptHat], Sequence[Sequence[float]], dict[str, Any]]


def write_results(sweep: Sweep, data: RunData, trained: Trained, margin: float) -> dict[str, Any]:
    """Compares the hats of `run.train_together`, writes both files, and returns what results.json holds."""
    hats, nats, figures = trained
    tokens = [example.supervised for example in data.held_out]
    done = [
        HatLoss(hat.point.name, hat.point.values, own) for hat, own in zip(hats, nats, strict=True) if not hat.failed
    ]
    points = []
    for hat, own, parameters in zip(hats, nats, figures["parameters"], strict=True):
        losses = [row["loss"] for row in hat.run.log if row["loss"] is not None]
        points.append(
            {
                "name": hat.point.name,
                "values": dict(hat.point.values),
                "folder": str(hat.point.out),
                "parameters": parameters,
                "steps": hat.run.cursor.step,
                "train_loss": fmean(losses[-max(1, len(losses) // 10) :]) if losses else None,
                "held_out_loss": None if hat.failed else loss([HatLoss("", {}, own)], tokens),
                "held_out_nats": list(own),
                "failed": hat.failed,
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
    logs = {hat.point.name: read_rows(hat.point.out / LOG) for hat in hats}
    measured = {hat.point.name: read_rows(hat.point.out / HELD_OUT) for hat in hats}
    write_text(sweep.out / PAGE, render(results, logs, measured))
    return results
