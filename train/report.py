"""A run as a page, drawn from the files that it writes: at its end, or while it runs."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

from lowrank.atomic_io import write_text
from lowrank.eval.html import svg
from lowrank.eval.html.page import escape, render_page, table
from lowrank.eval.html.plots import CURVE_STYLE, loss_curve
from lowrank.eval.html.sections import training_section
from lowrank.model.config_json import read_json

from .monitor import read_rows
from .resume.folder import CONFIG, HELD_OUT, LOG, REPORT

Row = dict[str, Any]

_STYLE = (
    svg.STYLE
    + CURVE_STYLE
    + """
.curve { max-width: 46rem; }
.beside { display: grid; gap: 1.5rem 3rem; grid-template-columns: minmax(0, 1fr); margin: 1.5rem 0; }
.document { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--wash); padding: 1.1rem 1.25rem; }
.document { border-radius: .3rem; margin: .5rem 0 .75rem; }
@media (min-width: 48rem) { .beside { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
"""
)


def write_report(run: Path) -> Path:
    """RUN/report.html.  Raises ValueError if the folder holds no run."""
    rows, held_out = read_rows(run / LOG), read_rows(run / HELD_OUT)
    if not (run / CONFIG).is_file():
        raise ValueError(f"{run}: holds no run: {CONFIG} is missing")
    if not rows:
        raise ValueError(f"{run}: {LOG} holds no step yet")
    write_text(run / REPORT, render(run.name, read_json(run / CONFIG), rows, held_out))
    return run / REPORT


def render(name: str, config: dict[str, Any], rows: Sequence[Row], held_out: Sequence[Row]) -> str:
    """The page of a run: its figures, the curves, the newest sample documents, and every key of its config."""
    body = [
        f"<h1>{escape(name)}</h1>",
        f'<p class="lead">{_lead(rows, held_out)}</p>',
        *training_section(rows),
        *_preference(rows),
        *_held_out(held_out),
        *_speed(rows),
        *_samples(held_out),
        *_config(config),
    ]
    return render_page(f"{name}: {len(rows):,} steps", _STYLE, body)


def _lead(rows: Sequence[Row], held_out: Sequence[Row]) -> str:
    skipped = sum("skipped" in row for row in rows)
    text = [f"{len(rows):,} steps, {sum(row['tokens'] for row in rows):,} tokens"]
    if skipped:
        text.append(f"{skipped:,} skipped because they were not finite")
    if held_out:
        best = min(held_out, key=lambda row: row["loss"])
        text.append(
            f"held-out loss {held_out[-1]['loss']:.3f}, the best {best['loss']:.3f} after step {best['step']:,}"
        )
    return "; ".join(text) + "."


def _preference(rows: Sequence[Row]) -> Iterator[str]:
    """Margin and accuracy of a run that learns preferences, in ten stretches."""
    known = [row for row in rows if row.get("reward_margin") is not None]
    if not known:
        return
    yield "<h2>Preferences</h2>"
    width = -(-len(known) // 10)
    lines = []
    for start in range(0, len(known), width):
        stretch = known[start : start + width]
        means = [fmean(row[key] for row in stretch) for key in ("loss", "reward_margin", "reward_accuracy")]
        steps = f"{stretch[0]['step']:,} to {stretch[-1]['step']:,}"
        lines.append([steps, f"{means[0]:.3f}", f"{means[1]:.3f}", f"{means[2]:.1%}"])
    text = "The losses of this run are of pairs. The margin is the reward of the chosen answer less that of the other."
    yield table(text, ["steps", "nats a pair", "reward margin", "pairs with a margin above 0"], lines, 1)


def _held_out(held_out: Sequence[Row]) -> Iterator[str]:
    if not held_out:
        return
    text = f"On entries that are never trained on, {len(held_out)} times, in nats per supervised token or pair."
    yield "<h2>Held out</h2>"
    points = [(float(row["step"]), float(row["loss"])) for row in held_out]
    yield f"<figure>{loss_curve(points, 0, 'Held-out loss', text)}<figcaption>{text}</figcaption></figure>"


def _speed(rows: Sequence[Row]) -> Iterator[str]:
    """Ten stretches of the run, so that one that was slowed down is seen."""
    yield "<h2>Speed</h2>"
    width = max(1, -(-len(rows) // 10))
    stretches = [rows[start : start + width] for start in range(0, len(rows), width)]
    lines = [
        [
            f"{stretch[0]['step']:,} to {stretch[-1]['step']:,}",
            f"{sum(row['tokens'] for row in stretch) / sum(row['seconds'] for row in stretch):,.0f}",
            f"{median(row['seconds'] for row in stretch):.3f}",
            f"{1 - sum(row['tokens'] for row in stretch) / sum(row['positions'] for row in stretch):.1%}",
            f"{stretch[-1]['lr']:.2e}",
        ]
        for stretch in stretches
    ]
    head = ["steps", "tokens a second", "seconds a step, median", "filling", "learning rate"]
    yield table(
        "Tokens are those of the entries; filling is the share of computed positions that is none.", head, lines, 1
    )


def _samples(held_out: Sequence[Row]) -> Iterator[str]:
    samples = held_out[-1]["samples"] if held_out else []
    if not samples:
        return
    yield f"<h2>Written after step {held_out[-1]['step']:,}</h2>"
    for sample in samples:
        yield f"<h3>{escape(sample['id'])}</h3>"
        yield (
            f'<div class="beside"><div><p>What the model writes</p><div class="document">{escape(sample["text"])}</div>'
            f'</div><div><p>The reference</p><div class="document">{escape(sample["reference"])}</div></div></div>'
        )


def _config(config: dict[str, Any]) -> Iterator[str]:
    yield "<h2>Config</h2>"
    lines = [[f"{name}.{key}", escape(str(value))] for name, values in config.items() for key, value in values.items()]
    yield f'<div class="words">{table("Every key of the run.", ["key", "value"], lines, words=2)}</div>'
