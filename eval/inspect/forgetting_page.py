"""The page of forgetting: what hats have learned and what their base has lost, with intervals."""

from collections.abc import Iterator

from ..html.citation import STYLE as CITATION_STYLE
from ..html.citation import citation
from ..html.page import escape, render_page, table
from ..html.panels import INTERVAL_STYLE, Difference, interval_panel
from ..html.panels import STYLE as PANEL_STYLE
from ..html.plots import STYLE, figure
from ..metrics.bootstrap import Interval
from .forgetting import Forgetting, shown


def render(found: Forgetting) -> str:
    """The page as text to be written in UTF-8; the same figures give the same bytes."""
    title = "What a hat learned, and what was forgotten"
    panel = interval_panel(list(_rows(found)), title, "nats a token more than the base alone")
    body = [
        f"<h1>{title}</h1>",
        *(f'<p class="lead">{escape(sentence)}</p>' for sentence in findings(found)),
        figure(panel, f"Differences with 95 % intervals over documents: {_counts(found)}. Left is better."),
        *(
            table(escape(caption), list(map(escape, head)), [list(map(escape, row)) for row in rows], words=1)
            for caption, (head, rows) in zip(_CAPTIONS, found.tables(), strict=False)
        ),
        citation(["lora", "intruders"]),
    ]
    return render_page(title, STYLE + PANEL_STYLE + INTERVAL_STYLE + CITATION_STYLE, body)


_CAPTIONS = (
    "Losses in nats a token, each with its difference from the base alone.",
    "The same from the first hat: above 0 on the task what is lost of it, below 0 on what is kept what comes back.",
)


def findings(found: Forgetting) -> Iterator[str]:
    """A sentence each: what a hat learned and forgot, and what one has given back."""
    for one in found.adapters:
        learned, forgotten = _verdict(one.learned, "learned", "unlearned"), _verdict(one.forgotten, "", "forgotten")
        yield (
            f"{one.name}: on the task {shown(one.learned)} nats a token{learned}; on what the base knew "
            f"{shown(one.forgotten)}{forgotten}."
        )
        if one.lost and one.recovered:
            first, recovered = found.adapters[0].name, _verdict(one.recovered, "recovered", "forgotten")
            yield (
                f"Beside {first} that is {shown(one.lost)} on the task and {shown(one.recovered)} on what the base "
                f"knew{recovered}."
            )


def _verdict(interval: Interval, below: str, above: str) -> str:
    if not interval.is_clear_of_zero:
        return " (nothing that can be told)"
    word = below if interval.difference < 0 else above
    return f" ({word})" if word else ""


def _rows(found: Forgetting) -> Iterator[Difference]:
    for group, part in (("task", "learned"), ("what the base knew", "forgotten")):
        for one in found.adapters:
            interval: Interval = getattr(one, part)
            better = interval.difference < 0 if interval.is_clear_of_zero else None
            yield Difference(
                group, one.name, interval.difference, interval.low, interval.high, f"{interval.difference:+.4f}", better
            )


def _counts(found: Forgetting) -> str:
    task, kept = found.documents
    return f"{task} of the task, {kept} of what the base knew"
