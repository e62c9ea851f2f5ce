"""Words of the command line: overrides and options in any order, and places that must not be written to."""

import argparse
import json
from pathlib import Path

import pytest

from lowrank.bench.plot import main as plot
from lowrank.cli import build_parser, main
from lowrank.cli.arguments import file_to_write, read_bytes, recipe_words, refuse_existing
from lowrank.cli.train import tell


@pytest.mark.parametrize(
    "line",
    [
        "train R --plan a.b=1 c.d=2",
        "train a.b=1 R --plan c.d=2",
        "train --plan R a.b=1 c.d=2",
        "train R a.b=1 --plan c.d=2",
        "train a.b=1 c.d=2 --plan R",
        "reproduce R --mixture M a.b=1 --n 3 c.d=2",
        "reproduce a.b=1 --mixture M R c.d=2",
    ],
)
def test_overrides_stand_anywhere_and_keep_their_order(line: str) -> None:
    args = build_parser().parse_args(line.split())
    assert recipe_words(args.words) == ("R", ["a.b=1", "c.d=2"])


def test_a_recipe_may_lie_in_a_folder_with_an_equals_sign() -> None:
    assert recipe_words(["run.epochs=2", "runs/lr=1e-4/run.toml"]) == ("runs/lr=1e-4/run.toml", ["run.epochs=2"])
    assert recipe_words(["run.epochs=2"]) == (None, ["run.epochs=2"])


@pytest.mark.parametrize("line", ["train R --bogus a.b=1", "quantize a b c", "train R --plan --resume"])
def test_what_no_verb_takes_is_refused(line: str) -> None:
    with pytest.raises(SystemExit) as stop:
        build_parser().parse_args(line.split())
    assert stop.value.code == 2


def test_a_word_too_many_is_refused_as_no_override(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "documents-7b", "--plan", "mixture-7b"]) == 2
    assert "'mixture-7b': an override is table.key=value" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["-3", "0", "nan", "inf", "1e400", "many"])
def test_a_size_is_a_byte_at_least(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="must be a size such as 80MB"):
        read_bytes(text)


def test_a_file_is_written_into_a_folder_that_is_there(tmp_path: Path) -> None:
    assert file_to_write(str(tmp_path / "page.html")) == tmp_path / "page.html"
    with pytest.raises(argparse.ArgumentTypeError, match="must be a file"):
        file_to_write(str(tmp_path))
    with pytest.raises(argparse.ArgumentTypeError, match="must be in a folder that is there"):
        file_to_write(str(tmp_path / "no" / "page.html"))
    assert not (tmp_path / "no").exists()


def test_what_is_there_is_replaced_only_when_asked(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refuse_existing(tmp_path / "empty", overwrite=False)
    refuse_existing(tmp_path / "new", overwrite=False)
    (tmp_path / "file").write_text("own")
    for there in (tmp_path / "file", tmp_path):
        with pytest.raises(ValueError, match="is there already"):
            refuse_existing(there, overwrite=False)
        refuse_existing(there, overwrite=True)


@pytest.mark.parametrize("verb", [["merge", "embedded", "hat", "OUT", "--into", "fp16"], ["export", "embedded", "OUT"]])
def test_merge_and_export_replace_nothing_unasked(
    verb: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "own.txt").write_text("own")
    words = [str(tmp_path) if word == "OUT" else word for word in verb]
    assert main([*words, *(["--format", "gguf"] if verb[0] == "export" else [])]) == 2
    assert f"{tmp_path}: is there already" in capsys.readouterr().err


@pytest.mark.slow
def test_documents_do_not_replace_a_file_of_somebody_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "train.jsonl").write_text("{}\n")
    assert main(["data", "documents", str(tmp_path), "--n", "10"]) == 2
    assert "train.jsonl: is there already and not of `lowrank data documents`" in capsys.readouterr().err
    assert (tmp_path / "train.jsonl").read_text() == "{}\n"
    assert main(["data", "documents", str(tmp_path / "own"), "--n", "10"]) == 0
    assert main(["data", "documents", str(tmp_path / "own"), "--n", "11"]) == 0  # a set of ours is made anew
    assert json.loads((tmp_path / "own" / "manifest.json").read_text())["output"]["train.jsonl"]["entries"] == 11


def test_a_run_without_a_finite_step_is_told_as_one_that_learned_nothing() -> None:
    row = {"loss": None, "tokens": 3, "positions": 4}
    with pytest.raises(FloatingPointError, match="no step of 2 was finite: the hat has learned nothing"):
        tell(Path("runs/hat"), [row, row], 10, False)


def test_a_plot_of_no_file_is_a_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert plot([str(tmp_path / "nosuch.jsonl"), str(tmp_path)]) == 2
    assert "nosuch.jsonl" in capsys.readouterr().err
