"""The whole way on the fixtures: counts, caps, bytes, and what a failure leaves behind.

`tests/golden/mixture` holds the manifest and the card of this run; where they differ, the test says where the new ones
lie, to be read and, if the change is meant, copied.
"""

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from child_process import environment, run_python

from lowrank.atomic_io import sha256_of, write_json
from lowrank.cli import main
from lowrank.data.mixture import build, leakage
from lowrank.data.mixture.build import build_mixture
from lowrank.data.mixture.card import write_card
from lowrank.data.mixture.fetch import local_files
from lowrank.data.mixture.rows import MixtureRow, read_rows

TOTAL = 150
FILES = ["DATA_CARD.md", "manifest.json", "ner-test.jsonl", "tfns-validation.jsonl", "train.jsonl"]


@pytest.fixture(scope="module")
def out(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a build of 150 rows, by the command line."""
    out = tmp_path_factory.mktemp("mixture") / "out"
    assert main(["data", "mixture", str(out), "--from", str(raw), "--total", str(TOTAL)]) == 0
    return out


@pytest.fixture(scope="module")
def manifest(out: Path) -> Any:
    return json.loads((out / "manifest.json").read_text())


def tree(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.slow
def test_every_rule_drops_what_the_fixtures_hold_for_it(manifest, expected_counts) -> None:
    for name, data in manifest["data_sets"].items():
        dropped = {rule: count for rule, count in data["dropped"].items() if count}
        assert {"read": data["read"], **dropped, "clean": data["clean"]} == expected_counts[name], name
        assert data["read"] == sum(data["dropped"].values()) + data["clean"]
        assert list(data["dropped"]) == list(manifest["rules"])


@pytest.mark.slow
def test_the_set_has_its_fixed_counts(out: Path, manifest) -> None:
    rows = read_rows(out / "train.jsonl")
    assert Counter(row.source for row in rows) == {
        "ner": 5, "tfns": 45, "fpb": 25, "fiqa_sa": 9, "nwgi": 16, "fiqa_qa": 50
    }  # fmt: skip
    assert len({row.id for row in rows}) == TOTAL
    for data in manifest["data_sets"].values():
        for part, counts in data["parts"].items():
            assert counts["labels"] == Counter(row.label for row in rows if row.source == part and row.label)
    assert manifest["data_sets"]["twitter-financial-news-sentiment"]["parts"]["tfns"]["labels"]["neutral"] == 22


def test_evaluation_sets_are_there_as_they_came(out: Path) -> None:
    tweets, names = read_rows(out / "tfns-validation.jsonl"), read_rows(out / "ner-test.jsonl")
    assert [row.id for row in tweets] == [f"twitter-financial-news-sentiment-validation-{i:05d}" for i in range(12)]
    assert [row.id for row in names] == [f"fingpt-ner-test-{i:05d}" for i in range(6)]


def test_hashes_are_those_of_the_files(out: Path, raw: Path, manifest) -> None:
    for name, file in manifest["output"].items():
        assert (file["sha256"], file["bytes"]) == (sha256_of(out / name), (out / name).stat().st_size)
        assert file["rows"] == len(read_rows(out / name))
    for file in manifest["files"]:
        path = raw / file["repository"].rpartition("/")[2] / file["file"]
        assert (file["sha256"], file["bytes"]) == (sha256_of(path), path.stat().st_size)


@pytest.mark.slow
def test_a_second_run_gives_the_same_bytes_under_another_hash_seed(out: Path, raw: Path, tmp_path: Path) -> None:
    command = ("-m", "lowrank", "data", "mixture", tmp_path / "out", "--from", raw, "--total", TOTAL)
    run_python(*command, env=environment(PYTHONHASHSEED="1"), cwd=tmp_path)
    assert tree(tmp_path / "out") == tree(out)
    assert sorted(tree(out)) == FILES


@pytest.mark.slow
def test_another_seed_draws_other_rows(out: Path, raw: Path, tmp_path: Path) -> None:
    build_mixture(tmp_path / "out", local_files(raw), seed=8, total=TOTAL)
    ours, theirs = ({row.id for row in read_rows(folder / "train.jsonl")} for folder in (out, tmp_path / "out"))
    assert ours != theirs


def without_parquet_bytes(manifest: dict[str, Any]) -> dict[str, Any]:
    """The manifest without what pyarrow's version decides: hash and size of the fixtures that it writes."""
    masked = copy.deepcopy(manifest)
    for file in masked["files"]:
        if file["file"].endswith(".parquet"):
            file |= {"bytes": 0, "sha256": "of a Parquet file, which pyarrow's version decides"}
    return masked


def test_manifest_and_card_are_the_golden_ones(out: Path, manifest, golden: Path, tmp_path: Path) -> None:
    assert (out / "DATA_CARD.md").read_text() == write_card(manifest)
    masked = without_parquet_bytes(manifest)
    write_json(tmp_path / "manifest.json", masked)
    (tmp_path / "DATA_CARD.md").write_text(write_card(masked), encoding="utf-8")
    for name in ("manifest.json", "DATA_CARD.md"):
        assert (tmp_path / name).read_bytes() == (golden / "mixture" / name).read_bytes(), tmp_path / name


@pytest.mark.slow
def test_counts_are_printed_as_json(raw: Path, tmp_path: Path, manifest, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["data", "mixture", str(tmp_path / "out"), "--from", str(raw), "--total", str(TOTAL), "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out) == {key: manifest[key] for key in ("data_sets", "output")}


# What goes wrong


@pytest.mark.slow
def test_a_leak_that_the_rules_let_through_stops_the_build(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build, "leak_rules", lambda guard: ())
    assert main(["data", "mixture", str(tmp_path / "out"), "--from", str(raw), "--total", "190"]) == 1
    assert "rows to learn from are in a test set: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_the_check_reads_what_is_on_disk(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = build.write_rows

    def write_a_test_row_everywhere(path: Path, rows: list[MixtureRow]) -> None:
        write(path, [*rows, MixtureRow("stray", "ner", "?", "a text of some test", "x")])

    monkeypatch.setattr(build, "write_rows", write_a_test_row_everywhere)
    with pytest.raises(leakage.LeakageError, match="1 rows to learn from are in a test set: stray"):
        build_mixture(tmp_path / "out", local_files(raw), total=TOTAL)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--total", "0"], "--total must be at least 1, got 0"),
        (["--total", "15000"], "twitter-financial-news-sentiment: 4,638 rows wanted, 102 can be had (tfns 102)"),
        (["--revision", "fingpt-ner"], "must be NAME=COMMIT, got 'fingpt-ner'"),
        (["--revision", "fingpt-ner=abc"], "argument --revision: not allowed with argument --from"),
    ],
)
def test_a_mistake_is_told_in_one_line_and_writes_nothing(
    options: list[str], message: str, raw: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        status = main(["data", "mixture", str(tmp_path / "out"), "--from", str(raw), *options])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_else_is_not_replaced(raw: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("chapter 1")
    with pytest.raises(ValueError, match=r"holds something else than a mixture, thesis.tex; name"):
        build_mixture(tmp_path, local_files(raw), total=TOTAL)
    with pytest.raises(ValueError, match="is a file, OUT must be a folder"):
        build_mixture(tmp_path / "thesis.tex", local_files(raw), total=TOTAL)
    assert (tmp_path / "thesis.tex").read_text() == "chapter 1"


@pytest.mark.slow
def test_a_mixture_of_before_is_replaced(raw: Path, tmp_path: Path) -> None:
    for total in (30, 20):
        build_mixture(tmp_path / "out", local_files(raw), total=total)
        assert len(read_rows(tmp_path / "out/train.jsonl")) == total
    assert sorted(tree(tmp_path / "out")) == FILES
