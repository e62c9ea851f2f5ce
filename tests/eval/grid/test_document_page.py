"""The page: well formed whatever a model wrote, alone on its disk, and every figure marked as the checker judges it."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import pytest

from lowrank.data.documents.document import Entry, make_documents, make_entry
from lowrank.data.facts.fact import make_fact
from lowrank.eval.grid.document_page import Report, Written, marked, render
from lowrank.eval.metrics.faithfulness import check

VOID = {"meta", "input", "br", "hr", "img"}
GRID: list[dict[str, Any]] = [
    {"adapter": adapter, "weights": weights, "n": 20, "loss": loss, "sections": 1.0}
    | {"figure_precision": precision, "figure_recall": 0.5, "binding": 0.5}
    for adapter, weights, loss, precision in [
        (None, "nf4-dq", 2.31, 0.04),
        ("finance", "nf4-dq", 0.43, 0.91),
        (None, "fp32", 2.28, 0.05),
        ("finance", "fp32", 0.41, 0.92),
    ]
]
HOSTILE = """<script>alert("x")</script> </div></fieldset> <img src=https://example.org/x onerror='a'> &amp; {0} %s
# <b>\x00\x1b\x08\r\x85\ud800\u202e $12 million " onmouseover="a" ]]> --> <!-- """
ENTRY = make_entry("covenant_certificate", 0, seed=3, split="test")


class Page(HTMLParser):
    """Every element with its attributes, its text in order; fails at the first tag that does not close."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), (tag, names)
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def values(self, name: str) -> list[str]:
        return [attributes[name] for _, attributes in self.elements if name in attributes]

    def tags(self) -> list[str]:
        return [tag for tag, _ in self.elements]


def report_of(*written: Written, grid: list[dict[str, Any]] | None = None) -> Report:
    return Report(
        title="A hat",
        run={"seed": "0", "machine": "x86_64"},
        training=[{"step": step, "loss": 3.0 / step, "lr": 1e-4} for step in range(1, 60)],
        grid=GRID if grid is None else grid,
        parts=[("base, fp16", 30_000_000), ("hat", 800_000)],
        documents=written,
        notes=["One note."],
    )


def full_report() -> Report:
    cells = [(None, "nf4-dq", ""), ("finance", "nf4-dq", HOSTILE), (None, "fp32", "a" * 5000)]
    entries = make_documents(10, seed=3, split="test")
    texts = [Written(entry, *cell) for entry in entries for cell in [*cells, ("finance", "fp32", entry.output)]]
    return report_of(*texts)


def record_states(page: str, entry: Entry) -> dict[str, str]:
    """The mark of each fact in the record of a page that shows one document."""
    rows = re.findall(r'<tr id="e1-\d+">.*?title="([a-z, ]+)">[✓✗–]</span></td></tr>', page)
    return dict(zip(entry.facts, rows, strict=True))


def test_the_page_is_well_formed_and_its_ids_are_its_own() -> None:
    page = Page(render(full_report()))
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in page.values("href")} <= set(ids)
    assert set(page.values("for")) <= set(ids)
    assert page.elements[0] == ("html", {"lang": "en"})


def test_headings_descend_one_step_at_a_time() -> None:
    levels = [int(tag[1]) for tag in Page(render(full_report())).tags() if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))


def test_every_chart_is_an_image_with_words_or_hidden() -> None:
    page = render(full_report())
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 5 + 1 + 2
    for chart in charts:
        assert 'aria-hidden="true"' in chart or ('role="img"' in chart and "<title>" in chart and "<desc>" in chart)


def test_the_page_asks_nothing_of_the_network() -> None:
    source = render(full_report())
    page = Page(source)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(page.tags())
    assert not page.values("src") and not page.values("onerror") and not page.values("onmouseover")
    assert all(link.startswith("#") for link in page.values("href"))
    style = source[source.index("<style>") : source.index("</style>")]
    assert "url(" not in style and "@import" not in style


def test_hostile_text_is_shown_and_nothing_else() -> None:
    page = render(
        replace(
            report_of(Written(ENTRY, HOSTILE, HOSTILE, HOSTILE), grid=[GRID[1] | {"adapter": HOSTILE}]),
            title=HOSTILE,
            run={HOSTILE: HOSTILE},
            parts=[(HOSTILE, 1)],
            notes=[HOSTILE],
        )
    )
    page.encode("utf-8")
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", page)
    assert "<script" not in page and "<img" not in page
    assert Page(page).text.count('<script>alert("x")</script>') >= 6


def test_a_hostile_record_is_escaped_too() -> None:
    facts = {"<k>": make_fact("<i>\n# label", "usd_m", "12.0"), "name": make_fact("<b>", "name", '"><u>')}
    entry = replace(ENTRY, facts=facts, id="<id>", kind="<kind>", instruction="<instruction>")
    page = render(report_of(Written(entry, None, "fp32", 'The <i>\n# label of "><u> is $12.0 million.')))
    assert not {"i", "u", "id", "k", "kind", "instruction"} & set(Page(page).tags())
    assert page.count('title="&lt;i&gt; # label: $12.0 million, but under another label"') == 1


def test_every_right_figure_links_to_its_fact() -> None:
    result = check(ENTRY, ENTRY.output)
    shown = Page(marked(ENTRY, ENTRY.output, result.figures, "e1"))
    numbers = [list(ENTRY.facts).index(figure.fact) + 1 for figure in result.figures if figure.fact]
    assert shown.values("href") == [f"#e1-{number}" for number in numbers]
    assert [attributes["class"] for tag, attributes in shown.elements if tag == "mark"] == ["right"] * len(numbers)
    first = ENTRY.facts[result.figures[0].fact or ""]
    assert shown.values("title")[0] == f"{first.label}: {first.print}"


def test_a_wrong_figure_is_marked_in_colour_and_in_sign() -> None:
    text = f"{ENTRY.output}\nThe fee is $98.7 million."
    shown = marked(ENTRY, text, check(ENTRY, text).figures, "e1")
    assert '<mark class="wrong" title="not in the record">$98.7 million<sup>✗</sup></mark>.' in shown
    assert shown.count('class="wrong"') == 1


def test_a_figure_under_another_label_is_told_apart() -> None:
    facts = {"debt": make_fact("debt", "usd_m", "5.0"), "cash": make_fact("cash", "usd_m", "7.0")}
    entry, text = replace(ENTRY, facts=facts), "Debt is $7.0 million."
    shown = marked(entry, text, check(entry, text).figures, "e1")
    assert '<mark class="right loose" title="cash: $7.0 million, but under another label">$7.0 million' in shown


def test_marks_leave_the_text_as_it_was() -> None:
    text = "# Head 1\nIn 2031 a fee of $5 < $6 & more.\n"
    shown = marked(ENTRY, text, check(ENTRY, text).figures, "e1")
    assert Page(shown).text.replace("✗", "") == text
    assert shown.startswith("<b># Head ")


@pytest.mark.parametrize("entry", make_documents(10, seed=5, split="test"), ids=lambda entry: entry.kind)
def test_the_record_marks_what_is_stated_and_what_is_missing(entry: Entry) -> None:
    whole = record_states(render(report_of(Written(entry, None, "fp32", entry.output))), entry)
    assert "missing" not in whole.values()
    figure = check(entry, entry.output).figures[-1]
    cut = entry.output[: figure.start] + "nothing" + entry.output[figure.end :]
    stated = {figure.fact for figure in check(entry, cut).figures}
    states = record_states(render(report_of(Written(entry, None, "fp32", cut))), entry)
    figures = [key for key, fact in entry.facts.items() if fact.is_figure]
    assert [states[key] for key in figures] == ["stated" if key in stated else "missing" for key in figures]
    assert "missing" in states.values()


def test_only_a_required_figure_can_be_missing() -> None:
    fee = make_fact("fee", "usd", "5")
    facts = {"fee": fee, "tip": replace(fee, required=False), "name": make_fact("name", "name", "Tarvane")}
    entry = replace(ENTRY, facts=facts)
    page = render(report_of(Written(entry, None, "fp32", "nothing of Tarvanes")))
    assert list(record_states(page, entry).values()) == ["missing", "not required, not stated", "not word for word"]
    page = render(report_of(Written(entry, None, "fp32", "of TARVANE")))
    assert record_states(page, entry)["name"] == "stated"


def test_an_empty_document_says_so() -> None:
    assert "Nothing was written." in render(report_of(Written(ENTRY, None, "fp32", " \n")))


def test_one_document_is_open_the_first_of_a_hat_if_there_is_one() -> None:
    page = Page(render(report_of(*(Written(ENTRY, hat, "fp32", "x") for hat in (None, "finance", "other")))))
    radios = [attributes for tag, attributes in page.elements if tag == "input"]
    assert ["checked" in radio for radio in radios] == [False, True, False]
    assert len({radio["name"] for radio in radios}) == 1


def test_an_empty_report_is_a_page() -> None:
    page = Page(render(Report("Nothing", {}, [], [], [], [], [])))
    assert "No cell of the grid was evaluated." in page.text
    assert not {"h2", "table", "svg", "ul"} & set(page.tags())


@pytest.mark.slow
def test_the_same_report_gives_the_same_page() -> None:
    assert render(full_report()) == render(full_report())
