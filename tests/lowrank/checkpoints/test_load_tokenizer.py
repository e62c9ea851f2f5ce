"""The tokenizer of a base: rows of the embedding without a piece, and pieces without a row."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from lowrank.checkpoints.load import load, load_tokenizer
from lowrank.model.generate import complete


def padded(golden: Path, embedded: Path, out: Path, rows: int) -> Path:
    """The small base of Hugging Face's form with the embedded base's tokenizer, and so many rows of vocabulary."""
    shutil.copytree(golden / "hf-tiny-qlora/base", out, ignore=shutil.ignore_patterns("tokenizer*"))
    shutil.copy(embedded / "tokenizer.model", out)
    config = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(config | {"vocab_size": rows}))
    tensors = load_file(out / "model.safetensors")
    generator = torch.Generator().manual_seed(0)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in tensors:
            old = tensors[name]
            tensors[name] = torch.randn(rows, old.shape[1], generator=generator).to(old.dtype)
    save_file(tensors, out / "model.safetensors")
    return out


def test_rows_without_a_piece_are_named_and_never_drawn(golden: Path, embedded: Path, tmp_path: Path) -> None:
    base = padded(golden, embedded, tmp_path / "base", 2112)
    (base / "added_tokens.json").write_text(json.dumps({"[PAD]": 2048}))
    with pytest.warns(UserWarning, match=r"has no piece for rows 2049 to 2111 of the embedding: never drawn"):
        tokenizer = load_tokenizer(base)
    model = load(base, "fp32")
    with torch.no_grad():
        model.output.weight[2049:] *= 1000
    written = complete(model, tokenizer, ["Revenue", "Net"], max_new_tokens=20, temperature=2.0)
    assert all(max(one.tokens) < 2049 for one in written)


def test_a_special_token_without_a_row_is_told_and_a_piece_without_one_is_refused(
    golden: Path, embedded: Path, tmp_path: Path
) -> None:
    base = padded(golden, embedded, tmp_path / "base", 2048)
    (base / "added_tokens.json").write_text(json.dumps({"[PAD]": 2048}))
    with pytest.warns(UserWarning, match=r"\[PAD\].*not used|no row of 2048 .* for \[PAD\]"):
        assert load_tokenizer(base).vocab_size == 2048
    small = padded(golden, embedded, tmp_path / "small", 2000)
    with pytest.raises(ValueError, match=r"has 2048 pieces, the embedding has 2000 rows"):
        load_tokenizer(small)
