"""A sweep as one page: which hat is better by how much, the smallest rank that is not worse, and the curves."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from lowrank.eval.html.page import escape, render_page, table
from lowrank.eval.html.panels import INTERVAL_STYLE, interval_panel
from lowrank.eval.html.panels import STYLE as PANEL_STYLE
from lowrank.eval.html.panels import Difference as PanelRow
from lowrank.eval.html.plots import STYLE, Line, figure, line_plot, running_mean

Row = Mapping[str, Any]


def render(results: Row, logs: Mapping[str, Sequence[Row]], held_out: Mapping[str, Sequence[Row]]) -> str:
    """The page of results.json, and of each hat's log and held-out measurements."""
    points, n = results["points"], results["held_out"]["entries"]
    body = [
        f"<h1>{len(points)} hats on one base</h1>",
        f'<p class="lead">{escape(lead(results))}</p>',
        *_points(points, n),
        *_ranks(results["smallest_rank"]),
        *_differences(results["differences"]),
        *_curves(logs, held_out),
    ]
    return render_page(f"A sweep of {len(points)} hats", STYLE + PANEL_STYLE + INTERVAL_STYLE, body)


def lead(results: Row) -> str:
    """The answer in one sentence or two."""
    done = [point for point in results["points"] if point["held_out_loss"] is not None]
    if not done:
        return "No hat was trained to its end."
    best = min(done, key=lambda point: point["held_out_loss"])
    text = f"The lowest held-out loss is {best['held_out_loss']:.4f} nats a token, of {best['name']}."
    return f"{text} {rank_sentence(results['smallest_rank'])}".strip()


def rank_sentence(answer: Row | None) -> str:
    """ "The smallest rank that is not worse than the best, 16, by 0.01 nats is 8." """
    if answer is None:
        return ""
    if answer["rank"] is None:
        return f"No smallest rank is named: {answer['reason']}."
    if answer["rank"] == answer["best"]:
        return (
            f"The best rank is {answer['best']}; no smaller one is shown to be within {answer['margin']:g} nats of it."
        )
    return (
        f"The smallest rank that is not worse is {answer['rank']}: its loss is above that of the best, "
        f"{answer['best']}, by less than {answer['margin']:g} nats, at the upper end of the interval."
    )


def _points(points: Sequence[Row], n: int) -> Iterator[str]:
    yield "<h2>Hats</h2>"
    rows = [
        [
            escape(point["name"]),
            f"{point['parameters']:,}",
            f"{point['steps']:,}",
            "–" if point["train_loss"] is None else f"{point['train_loss']:.4f}",
            escape(point["failed"]) if point["held_out_loss"] is None else f"{point['held_out_loss']:.4f}",
        ]
        for point in sorted(points, key=lambda point: (point["held_out_loss"] is None, point["held_out_loss"]))
    ]
    caption = (
        f"Losses in nats per supervised token: of the last tenth of the steps, and of {n} entries that no hat has seen."
    )
    yield table(caption, ["hat", "parameters", "steps", "training", "held out"], rows, 1)


def _ranks(answer: Row | None) -> Iterator[str]:
    if answer is None:
        return
    yield "<h2>The smallest rank that is not worse</h2>"
    yield f"<p>{escape(rank_sentence(answer))}</p>"
    yield (
        "<p>Each rank has the other settings, but the seed, that are best for it. A rank is not worse if the upper end "
        f"of the 95 % interval of its loss less that of the best rank is below {answer['margin']:g} nats a token.</p>"
    )
    yield from _panel(answer["compared"], f"Loss less that of rank {answer['best']}")


def _differences(differences: Sequence[Row]) -> Iterator[str]:
    if not differences:
        return
    yield "<h2>Setting by setting</h2>"
    yield (
        "<p>The mean over all pairs of hats that differ in this setting alone. Intervals, 95 %, are of the paired "
        "bootstrap over entries; other seeds are not in them, so the difference of each pair stands in the table.</p>"
    )
    yield from _panel(differences, "Loss less that of the first value")
    rows = [
        [
            escape(one["axis"]),
            f"{escape(str(one['value']))} against {escape(str(one['reference']))}",
            f"{one['difference']:+.4f}",
            "–" if one["low"] is None else f"{one['low']:+.4f} to {one['high']:+.4f}",
            ", ".join(f"{value:+.4f}" for value in one["each"]),
            escape(one["verdict"]),
        ]
        for one in differences
    ]
    heads = ["setting", "values", "difference", "95 % interval", "of each pair", ""]
    yield table("In nats per supervised token; below 0 the value named first is better.", heads, rows, 2)


def _panel(differences: Sequence[Row], title: str) -> Iterator[str]:
    rows = [
        PanelRow(
            group=one["axis"],
            label=f"{one['value']} - {one['reference']}",
            difference=one["difference"],
            low=_number(one["low"]),
            high=_number(one["high"]),
            shown=f"{one['difference']:+.4f}",
            better={"better": True, "worse": False}.get(one["verdict"]),
        )
        for one in differences
    ]
    if rows:
        yield figure(
            interval_panel(rows, title, "nats a token"), f"{title}, nats per supervised token, with 95 % intervals."
        )


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _curves(logs: Mapping[str, Sequence[Row]], held_out: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    yield "<h2>Curves</h2>"
    training, measured = [], []
    for name, rows in logs.items():
        losses = [(float(row["step"]), float(row["loss"])) for row in rows if row["loss"] is not None]
        if losses:
            smooth = running_mean([loss for _, loss in losses], max(1, len(losses) // 20))
            training.append(Line(name, [(step, loss) for (step, _), loss in zip(losses, smooth, strict=True)], "faint"))
    for name, rows in held_out.items():
        if len(rows) > 1:
            measured.append(Line(name, [(float(row["step"]), float(row["loss"])) for row in rows], "faint"))
    for lines, what in ((training, "Training loss, a running mean"), (measured, "Held-out loss")):
        if lines:
            drawing = line_plot(lines, what, "step", "loss, nats per supervised token")
            yield figure(drawing, f"{what}. A line a hat; pointed at, it tells its name.")
