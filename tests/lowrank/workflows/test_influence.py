"""Influence held against runs without documents: scores by hand, and the whole path on a few documents."""

import json
from pathlib import Path

import numpy as np
import pytest

from lowrank.checkpoints.embedded import EMBEDDED
from lowrank.checkpoints.load import load
from lowrank.data.documents.document import make_documents, write_jsonl
from lowrank.data.encoding.batching import Example
from lowrank.workflows.influence import HIDDEN, RANDOM, advised, cosines, score, validate, word_weights
from lowrank.workflows.influence_page import findings, render
from lowrank.workflows.influence_runs import RETRAINS, Task, losses_without, retrain

IDS = [f"d-{place}" for place in range(6)]
ABOUT = {"epochs": 1, "machine": "m", "threads": 1, "versions": {"torch": "2"}, "commit": "c", "date": "2026-11-30"}


def test_a_prediction_that_is_right_has_a_correlation_of_1_with_singles_and_halves() -> None:
    generator = np.random.default_rng(0)
    effect = generator.standard_normal((10, len(IDS)))
    whole = np.full(10, 5.0)
    halves = [generator.choice(6, 3, replace=False) for _ in range(8)]
    left_out = [[], *([place] for place in range(6)), *halves]
    rows = [
        {"excluded": [IDS[i] for i in places], "losses": (whole + effect[:, list(places)].sum(1)).tolist(), **ABOUT}
        for places in left_out
    ]
    found = score({"adam": effect, "sgd": -effect, HIDDEN: effect, RANDOM: -effect}, IDS, rows, [1, 2])
    assert (found.singles, found.halves, found.tests) == (6, 8, 10)
    by_name = {one.name: (one.single.difference, one.half.difference) for one in found.scores}
    assert by_name["adam"] == pytest.approx((1.0, 1.0)) and by_name["sgd"] == pytest.approx((-1.0, -1.0))
    assert found.actual == pytest.approx(found.predicted["adam"]) == pytest.approx(found.predicted["sgd"])
    assert "(adam) have a rank correlation of +1.00 [+1.00, +1.00]" in " ".join(findings(found))
    page = render(found)
    assert page.count("<svg") == 3 and "ilyas2022datamodels" in page and page.endswith("</html>\n")


def test_words_that_all_documents_have_weigh_nothing() -> None:
    one, other = Example("a", (1, 2, 2), (1, 2, 2)), Example("b", (1, 3), (1, 3))
    (test,), (train,) = word_weights([one]), word_weights([other])
    assert test.shape == (1, 3) and train.shape == (1, 4)
    test, train = word_weights([one], [one, other])
    np.testing.assert_allclose(test[0], [0, 0, 2 * np.log(1.5), 0])
    np.testing.assert_allclose(cosines(test, train), [[1.0, 0.0]])


def test_the_checkpoints_are_those_that_a_run_is_advised_to_keep() -> None:
    assert advised(13) == [4, 8, 12, 13] and advised(52) == [13, 26, 39, 52] and advised(2) == [1, 2]


@pytest.mark.long
def test_the_whole_path_goes_on_where_it_was(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "train.jsonl", make_documents(20, seed=7, split="train"))
    task = Task(tmp_path / "out", train=str(tmp_path / "train.jsonl"), tests=2, halves=1)
    rows = [json.loads(line) for line in retrain(task, at_most=2).read_text().splitlines()]
    assert [len(row["excluded"]) for row in rows] == [0, 1, 1]
    rows = [json.loads(line) for line in retrain(task, at_most=2).read_text().splitlines()]
    assert [len(row["excluded"]) for row in rows] == [0, 1, 1, 10, 1]
    second = next(id for id, step in task.first_steps().items() if step == 1)
    model = load(EMBEDDED, "nf4-dq")
    losses = [losses_without(task, model, (second,), first_step) for first_step in (0, 1)]
    assert losses[0] == losses[1], "a run goes on from the reference bit for bit"
    found = validate(task, progress=False)
    assert (found.singles, found.halves) == (3, 1) and found.checkpoints == (1, 2, 3)
    stored = json.loads((task.folder / "influence.json").read_text())
    assert stored["tests"] == 2 and stored["scores"][0]["half"]["difference"] is None, "one half has no ranks"
    assert (task.folder / "influence.html").read_text().endswith("</html>\n") and (task.folder / RETRAINS).exists()
