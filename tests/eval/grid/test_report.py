"""A grid as JSON, Markdown and a page: the same numbers in each, nothing from the network, nothing unescaped."""

import importlib.util
import json
import re
from pathlib import Path

import pytest

from lowrank.data.documents.document import make_documents
from lowrank.data.mixture.layouts import TWEET
from lowrank.data.mixture.rows import MixtureRow
from lowrank.eval.grid.columns import Column
from lowrank.eval.grid.comparison import QUESTIONS
from lowrank.eval.grid.grid import Cell
from lowrank.eval.grid.page import render_grid
from lowrank.eval.grid.report import GridReport, Table, answer_rows, answers, markdown
from lowrank.eval.tasks.documents import Documents
from lowrank.eval.tasks.generate import Output
from lowrank.eval.tasks.sentiment import Sentiment

_SPEC = importlib.util.spec_from_file_location("page_checks", Path(__file__).parent / "test_document_page.py")
assert _SPEC is not None and _SPEC.loader is not None
page_checks = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(page_checks)
Page, HOSTILE = page_checks.Page, page_checks.HOSTILE

ENTRIES = make_documents(10, seed=5, split="test")
TWEETS = [MixtureRow(f"t-{i}", "tfns", TWEET, HOSTILE, label, label) for i, label in enumerate(("neutral", "positive"))]


def cell(task, adapter, weights, texts, nats):
    outputs = tuple(Output(text, 3, True) for text in texts)
    return Cell(task, Column(adapter, weights), outputs, tuple([nats] * len(texts)), tuple([10] * len(texts)))


def report_of(hat="a"):
    documents, sentiment = Documents(ENTRIES), Sentiment(TWEETS)
    written = [entry.output for entry in ENTRIES]
    half = [text[: len(text) // 2] for text in written]
    grid = [(None, "fp32", [HOSTILE] * len(ENTRIES), 4.0), (hat, "fp32", written, 1.0), (None, "nf4-dq", half, 5.0)]
    cells = [
        cell(documents, adapter, w, texts, nats) for adapter, w, texts, nats in [*grid, (hat, "nf4-dq", half, 2.0)]
    ]
    said = [(None, "fp32", ["neutral", "neutral"], 9.0), (hat, "fp32", ["neutral", HOSTILE], 3.0)]
    cells += [cell(sentiment, adapter, w, texts, nats) for adapter, w, texts, nats in said]
    return GridReport.of(
        {"seed": HOSTILE}, cells, [Table("Beside", ("hat", "weights", "x"), [("a|b", "fp32", "1")], "A note.")]
    )


@pytest.fixture(scope="module")
def report():
    return report_of()


@pytest.fixture(scope="module")
def page(report):
    return render_grid(report)


def test_each_question_is_answered_for_each_pair_with_its_interval(report) -> None:
    found = dict(answers(report.comparisons))
    assert list(found) == [QUESTIONS["gain"], QUESTIONS["cost"]]
    gains = found[QUESTIONS["gain"]]
    assert gains[0].startswith("documents, a on fp32, n = 10: loss -0.300 nats per token [-0.300, -0.300]")
    assert "sections +100.0 points [+100.0, +100.0]" in gains[0]
    assert [gain.partition(",")[0] for gain in gains] == ["documents", "documents", "sentiment"]
    rows = answer_rows(report.comparisons, "gain")
    assert rows[0] == ["documents", "a", "fp32", "loss, nats per token", "-0.300", "[-0.300, -0.300]", "better"]


def test_the_same_scores_are_said_in_one_line() -> None:
    documents = Documents(ENTRIES)
    texts = [entry.output for entry in ENTRIES]
    same = GridReport.of({}, [cell(documents, None, w, texts, 1.0) for w in ("dequant:nf4-dq", "nf4-dq")])
    (title, sentences), *others = answers(same.comparisons)
    assert (title, others) == (QUESTIONS["arithmetic"], [])
    assert sentences == [
        "documents, the base alone on nf4-dq instead of dequant:nf4-dq, n = 10: every score is the same."
    ]


def test_json_markdown_and_page_say_the_same(report, page) -> None:
    figures = json.loads(json.dumps(report.to_json(), allow_nan=False))
    text = markdown(report)
    for row in figures["cells"]:
        assert f"{row['loss']:.3f}" in text and f"{row['loss']:.3f}" in page
    for one in report.comparisons:
        shown = one.measure.show(one.interval.difference, signed=True)
        assert shown in text and shown in page
    assert len(figures["comparisons"]) == len(report.comparisons)
    assert "a\\|b" in text


def test_the_page_is_well_formed_its_ids_are_its_own_and_it_asks_nothing_of_the_network(page) -> None:
    parsed = Page(page)
    ids = parsed.values("id")
    assert len(ids) == len(set(ids))
    assert {link.removeprefix("#") for link in parsed.values("href")} <= set(ids)
    assert not {"script", "link", "img", "iframe", "object", "base", "form"} & set(parsed.tags())
    assert not parsed.values("src") and not parsed.values("onerror")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style and "@import" not in style
    page.encode("utf-8")
    assert "<script" not in page and not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", page)


def test_every_document_stands_beside_every_other_and_the_reference(report, page) -> None:
    parsed = Page(page)
    assert parsed.tags().count("article") == 0
    assert page.count('<div class="document">') == len(ENTRIES) * 5
    assert page.count("<h4>reference</h4>") == len(ENTRIES)
    for entry in ENTRIES:
        assert entry.id in parsed.text
    assert page.count('<tr><th scope="row">t-') == len(TWEETS)


def test_every_picture_has_words(page) -> None:
    charts = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(charts) == 5 + 5 + 5 + 5 + 5  # documents: gain, cost, scores; sentiment: gain, scores
    assert all('role="img"' in chart and "<title>" in chart and "<desc>" in chart for chart in charts)


@pytest.mark.slow
def test_a_hostile_name_is_shown_and_nothing_else() -> None:
    page = render_grid(report_of(hat=HOSTILE))
    assert "<script" not in page and "<img" not in page
    Page(page)


def test_a_grid_of_one_cell_says_that_nothing_can_be_compared() -> None:
    documents = Documents(ENTRIES)
    page = render_grid(GridReport.of({}, [cell(documents, None, "fp32", [""] * len(ENTRIES), 1.0)]))
    assert "no two cells that differ in the hat alone or in 4 bit alone" in Page(page).text
