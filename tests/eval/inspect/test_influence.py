"""The figures of influence and their page: what is shown of each side, in which order, and what is escaped."""

from dataclasses import replace

import numpy as np

from lowrank.eval.inspect.influence import DataXray, Document, Effect
from lowrank.eval.inspect.influence_page import findings, render, tables


def xray(effect: list[list[float]]) -> DataXray:
    return DataXray(
        run="runs/x",
        base="embedded",
        method="adam",
        steps=4,
        checkpoints=(2, 4),
        train=tuple(Document(f"train-{place}", 10, f"<b>{place}</b>") for place in range(4)),
        test=tuple(Document(f"test-{place}", 5, "told") for place in range(len(effect))),
        losses=(2.0,) * len(effect),
        effect=np.array(effect),
        own=np.array([0.1, 0.4, 0.2, 0.3]),
        top=2,
    )


FOUND = xray([[0.1, -0.2, 0.3, 0.0], [-0.1, -0.2, -0.3, -0.4], [0.0, 0.0, 0.0, 0.0]])


def test_each_side_is_sorted_cut_and_without_zeros() -> None:
    assert FOUND.helped(0) == [Effect(2, 0.3), Effect(0, 0.1)]
    assert FOUND.hurt(0) == [Effect(1, -0.2)]
    assert FOUND.helped(1) == [] and FOUND.hurt(1) == [Effect(3, -0.4), Effect(2, -0.3)]
    assert FOUND.strongest() == [Effect(1, 0.4), Effect(3, 0.3)]


def test_tables_and_sentences_tell_the_first_of_each_side() -> None:
    (_, rows), (_, own) = tables(FOUND)
    assert rows[0] == ["test-0", "0.4000", "train-2", "+0.3", "train-1", "-0.2"]
    assert rows[1][2:4] == ["", ""] and own[0] == ["train-1", "0.4"]
    assert "cost 0.3 nats more in the mean, of 2 that its 5 tokens cost" in " ".join(findings(FOUND))
    assert "no test document would have been harder" in " ".join(findings(xray([[-1.0, 0.0, 0.0, 0.0]])))


def test_a_bar_has_the_end_of_a_long_id() -> None:
    found = xray([[0.1, -0.2, 0.3, 0.0]])
    named = tuple(Document(f"covenant_certificate-{place:04}", 10, "") for place in range(4))
    assert ">…ertificate-0002</text>" in render(replace(found, train=named))


def test_the_page_sets_texts_side_by_side_and_escapes_them() -> None:
    page = render(FOUND)
    assert page.count("<svg") == 2 and "No training document moved its loss." in page
    assert "&lt;b&gt;2&lt;/b&gt;" in page and "<b>2" not in page and page.endswith("</html>\n")
