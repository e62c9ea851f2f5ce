"""Entries of a run: several files, weights, what is held out, what is left out, and what is said of it."""

import json
from pathlib import Path
from typing import Any

import pytest
from data_cases import GOOD, LONG, lines

from lowrank.model.tokenizer import Tokenizer
from lowrank.train.config import TrainConfig
from lowrank.train.data import SKIPPED, encoded_or_none, read_run_data
from lowrank.train.from_config import train_from_config

ROWS = [{"instruction": f"Name {n}.", "output": f"It is {n}."} for n in range(20)]


def config(data: dict[str, Any], **tables: Any) -> TrainConfig:
    return TrainConfig.from_dict({"data": data, **tables})


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the working directory, with files of examples."""
    monkeypatch.chdir(tmp_path)
    Path("rows.jsonl").write_bytes(lines(*ROWS))
    Path("good.jsonl").write_bytes(lines(*GOOD))
    Path("bad.jsonl").write_bytes(lines(GOOD[0], {"instruction": "a", "output": 5}, 7, GOOD[1]))
    Path("long.jsonl").write_bytes(lines(*GOOD, {**GOOD[0], "output": LONG}))
    return tmp_path


def test_several_files_are_learned_as_often_as_their_weights_say(files: Path, tokenizer: Tokenizer) -> None:
    data = {"train": ["good.jsonl", "rows.jsonl"], "weights": [2.0, 0.25]}
    run = read_run_data(config(data), tokenizer)
    ids = [example.id for example in run.examples]
    assert ids[:8] == [f"good:{n}" for n in (1, 2, 3, 4)] * 2
    assert len(ids[8:]) == len(set(ids[8:])) == 5
    assert read_run_data(config(data), tokenizer).examples == run.examples
    assert read_run_data(config(data | {"seed": 1}), tokenizer).examples != run.examples
    assert [(about["file"], about["weight"]) for about in run.origin["files"]] == [
        ("good.jsonl", 2.0),
        ("rows.jsonl", 0.25),
    ]


def test_a_validation_split_is_seeded_and_never_learned(files: Path, tokenizer: Tokenizer) -> None:
    Path("twice.jsonl").write_bytes(lines(*ROWS, *ROWS))
    data, watch = {"train": "twice.jsonl", "validation": 0.2}, {"every": 2}
    run = read_run_data(config(data, watch=watch), tokenizer)
    assert (len(run.examples), len(run.held_out)) == (32, 8)
    assert not {example.tokens for example in run.examples} & {example.tokens for example in run.held_out}
    assert run.origin["validation"] == {"entries": 8, "seed": 0} and run.notes == []
    again = read_run_data(config(data | {"validation": 8}, watch=watch), tokenizer)
    assert again.held_out == run.held_out
    other = read_run_data(config(data | {"seed": 1}, watch=watch), tokenizer)
    assert other.held_out != run.held_out
    with pytest.raises(ValueError, match=r"^data\.validation = 40 leaves none of 40 entries to learn from$"):
        read_run_data(config(data | {"validation": 40}, watch=watch), tokenizer)


def test_rows_that_cannot_be_learned_are_skipped_when_that_is_asked_for_and_kept_with_their_reasons(
    files: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(
        ValueError, match=r"^data\.train: bad\.jsonl:2: output: .*, got 5 \(and 1 more of 4 rows\); data\.skip_bad "
    ):
        read_run_data(config({"train": "bad.jsonl"}), tokenizer)
    run = read_run_data(config({"train": "bad.jsonl", "skip_bad": True}), tokenizer)
    assert [example.id for example in run.examples] == ["bad:1", "bad:4"]
    assert run.notes == [
        "data.train: bad.jsonl: 2 of 4 rows cannot be learned and are left out, "
        "each with its reason in skipped.jsonl of run.out"
    ]
    run.write_skipped(files)
    assert [json.loads(line) for line in (files / SKIPPED).read_text().splitlines()] == [
        {"file": "bad.jsonl", "place": "2", "reason": "output: must be a text, got 5"},
        {"file": "bad.jsonl", "place": "3", "reason": "must be an object, got 7"},
    ]
    with pytest.raises(ValueError, match=r"^data\.train: none\.jsonl: none of 1 rows can be learned: 1: text: must"):
        Path("none.jsonl").write_bytes(b'{"text": 7}\n')
        read_run_data(config({"train": "none.jsonl", "skip_bad": True}), tokenizer)


def test_entries_that_are_too_long_are_told_of_what_is_learned_and_of_what_is_measured(
    files: Path, tokenizer: Tokenizer
) -> None:
    watched = config({"train": "long.jsonl"}, watch={"held_out": "long.jsonl", "every": 1})
    run = read_run_data(watched, tokenizer)
    told = "long.jsonl: 1 of 5 entries have over 1024 tokens and are left out: long:5"
    assert run.notes[:2] == [f"data.train: {told}", f"watch.held_out: {told}"]
    Path("too_long.jsonl").write_bytes(lines({**GOOD[0], "output": LONG}))
    watched = config({"train": "good.jsonl"}, watch={"held_out": "too_long.jsonl", "every": 1})
    with pytest.raises(
        ValueError, match=r"^watch\.held_out: too_long\.jsonl: data\.max_tokens = 1024 leaves none of 1 "
    ):
        read_run_data(watched, tokenizer)


def test_held_out_entries_that_are_learned_or_never_measured_are_told(files: Path, tokenizer: Tokenizer) -> None:
    run = read_run_data(config({"train": "good.jsonl"}, watch={"held_out": "good.jsonl", "every": 1}), tokenizer)
    assert run.notes == ["watch.held_out: 4 of 4 entries are learned too: their loss says little of others"]
    run = read_run_data(config({"train": "good.jsonl"}, watch={"held_out": "rows.jsonl"}), tokenizer)
    assert (run.held_out, run.notes) == ([], ["watch.held_out: never measured, watch.every is 0"])


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        ({"data": {"train": []}}, r"data\.train must be a file or a list of files, got \[\]"),
        ({"data": {"train": ["a", 3]}}, r"data\.train\[1\] must be of type str, got 3"),
        ({"data": {"train": ["a", "b"], "weights": [1.0]}}, r"data\.weights must be a number above 0 for each of 2 "),
        ({"data": {"train": "a", "weights": [-1]}}, r"data\.weights must be a number above 0 for each of 1 files, got"),
        ({"data": {"validation": -0.1}}, r"data\.validation must be at least 0, got -0\.1"),
        ({"data": {"validation": 2.5}, "watch": {"every": 1}}, r"data\.validation must be a share below 1 or a whole"),
        ({"data": {"validation": 0.1}}, r"data\.validation needs watch\.every"),
        ({"data": {"validation": 0.1}, "watch": {"every": 1, "held_out": "a"}}, "and no watch.held_out beside it"),
        ({"watch": {"every": 1}}, r"watch\.every needs data\.validation, or watch\.held_out"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        TrainConfig.from_dict(tables)
    assert "\n" not in str(error.value)


def test_a_plan_counts_what_a_run_would_learn(files: Path) -> None:
    examples = encoded_or_none(config({"train": ["good.jsonl", "rows.jsonl"], "weights": [2, 1]}))
    assert examples is not None and len(examples) == 28
    assert encoded_or_none(config({"train": ["good.jsonl", "missing.jsonl"]})) is None


@pytest.mark.slow
def test_a_run_on_a_table_with_a_split_measures_what_it_held_out(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.csv").write_text("question,answer\n" + "".join(f"Name {n}.,It is {n}.\n" for n in range(6)) + "only one\n")
    run = config(
        {"train": "a.csv", "validation": 2, "skip_bad": True},
        adapter={"rank": 1},
        run={"epochs": 1, "batch": 4, "out": "out"},
        watch={"every": 1, "samples": 1},
    )
    hat = train_from_config(run, progress=False).adapter
    assert "1 of 7 rows cannot be learned" in capsys.readouterr().err
    assert json.loads(Path("out", SKIPPED).read_text())["place"] == "8"
    record = json.loads((hat / "lowrank.json").read_text())["data"]
    assert (record["entries"], record["skipped"], record["validation"]["entries"]) == (4, 1, 2)
    assert len(Path("out/held_out.jsonl").read_text().splitlines()) == 1
