"""The bench of grounded decoding's constraint, on the embedded tokenizer: a row. No time is looked at."""

import json
from pathlib import Path

import pytest
import torch

from lowrank.bench.models.grounding import draws, main, measure
from lowrank.checkpoints.embedded import base_folder
from lowrank.data.documents.document import make_documents
from lowrank.grounding.vocabulary import Vocabulary
from lowrank.model.tokenizer import Tokenizer

pytestmark = pytest.mark.usefixtures("cores")


def test_a_row(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = base_folder("embedded")
    assert main([str(folder), "--n", "1", "--out", str(tmp_path)]) == 0
    (row,) = (json.loads(line) for line in (tmp_path / "grounding.jsonl").read_text().splitlines())
    assert (row["bench"], row["vocabulary"], row["texts"]) == ("grounding", Tokenizer(folder).vocab_size, 5)
    low, middle, high = row["ms_by_text"]
    assert 0 < low <= middle <= high and 0 < row["refused"] < row["tokens"]
    assert "ms a token" in capsys.readouterr().out


def test_a_true_document_has_no_token_refused_and_a_spoiled_one_has() -> None:
    tokenizer = Tokenizer(base_folder("embedded"))
    vocabulary = Vocabulary(tokenizer)
    (entry,) = make_documents(1, seed=7, split="test")
    likes = torch.arange(vocabulary.size, dtype=torch.float32)
    true, *spoiled = (measure(entry, tokenizer.encode(text), vocabulary, likes) for text in draws(entry, 7))
    assert true.refused == 0 and len(true.ms) == len(tokenizer.encode(entry.output))
    assert all(text.refused for text in spoiled)


def test_a_file_that_is_no_tokenizer_is_told_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no tokenizer")
    assert main([str(tmp_path / "tokenizer.model")]) == 2
    assert str(tmp_path) in capsys.readouterr().err
