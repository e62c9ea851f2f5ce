"""The tokenizer in a GGUF file: SentencePiece's ids and those of Hugging Face's `tokenizers`, to the last."""

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest
from gguf_files import TINY, random_tensors, write_gguf_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from lowrank.checkpoints.load import load_tokenizer
from lowrank.checkpoints.open_base import no_tokenizer_reason, open_tokenizer
from lowrank.data.documents.document import make_documents
from lowrank.gguf.export import export_base_gguf
from lowrank.gguf.header import read_header
from lowrank.gguf.tokenizer_files import CONTROL, NORMAL, PRE_TOKENIZERS, UNUSED, USER_DEFINED, tokenizer_files
from lowrank.model.tokenizer import Tokenizer as Ours

ALPHABET = [*"abcdehilnorstxyzABZ 0123456789.,'$%()\n\t\r/", *"éßﬁ½中한🙂", "  ", "\u00a0", "'S", "'ll"]
ODD = ["<s>", "</s>", "<|im_end|>", "\N{LOWER ONE EIGHTH BLOCK}", "<0x41>", "\u2028", "e\u0301", "\U0001f468\u200d"]


@pytest.fixture(scope="module")
def texts() -> list[str]:
    random = Random(0)
    written = [entry.output for entry in make_documents(20, seed=3, split="train")]
    drawn = ["".join(random.choices(ALPHABET + ODD, k=random.randrange(1, 50))) for _ in range(1500)]
    return [*written, *drawn, "", " ", "   ", "a"]


@pytest.mark.slow
def test_sentencepiece_is_rebuilt_to_the_id(embedded: Path, tmp_path: Path, texts: list[str]) -> None:
    path = export_base_gguf(embedded, tmp_path / "base.gguf")
    ours, theirs = open_tokenizer(path), load_tokenizer(embedded)
    assert [ours.encode(text) for text in texts] == [theirs.encode(text) for text in texts]
    assert (ours.vocab_size, ours.bos_id, ours.eos_ids) == (theirs.vocab_size, theirs.bos_id, theirs.eos_ids)
    assert [ours.piece(id) for id in range(ours.vocab_size)] == [theirs.piece(id) for id in range(theirs.vocab_size)]
    for id in range(ours.vocab_size):
        assert ours.token_bytes(id) == theirs.token_bytes(id) and ours.is_control(id) == theirs.is_control(id)


@pytest.fixture(scope="module")
def trained(texts: list[str]) -> dict[str, Tokenizer]:
    """A byte-level BPE for each way of cutting, as the tokenizer.json of its family spells it."""
    letters, gpt2 = (pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cuts) for cuts in (False, True))
    llama3 = Regex(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
        r"\s+(?!\S)|\s+"
    )
    cuts: dict[str, Any] = {
        "llama-bpe": pre_tokenizers.Sequence([pre_tokenizers.Split(llama3, "isolated"), letters]),
        "smollm": pre_tokenizers.Sequence([pre_tokenizers.Digits(True), gpt2]),
        "gpt-2": gpt2,
    }
    found = {}
    for name, cut in cuts.items():
        tokenizer = Tokenizer(models.BPE(ignore_merges=PRE_TOKENIZERS[name].ignore_merges))
        tokenizer.pre_tokenizer, tokenizer.decoder = cut, decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        tokenizer.train_from_iterator(
            texts[:1200], trainers.BpeTrainer(vocab_size=700, initial_alphabet=alphabet, show_progress=False)
        )
        tokenizer.add_special_tokens(["<|bos|>", "<|im_end|>"])
        tokenizer.add_tokens([AddedToken("<tool>", normalized=False)])
        found[name] = tokenizer
    return found


def bpe_file(path: Path, tokenizer: Tokenizer, pre: str, **more: Any) -> Path:
    """A file that holds a byte-level BPE as llama.cpp's converter writes it, and two pieces that only fill up."""
    model = json.loads(tokenizer.to_str())["model"]
    added = tokenizer.get_added_tokens_decoder()
    tokens = [tokenizer.id_to_token(id) for id in range(tokenizer.get_vocab_size())]
    kinds = [NORMAL if id not in added else CONTROL if added[id].special else USER_DEFINED for id in range(len(tokens))]
    values = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": [*tokens, "[PAD0]", "[PAD1]"],
        "tokenizer.ggml.token_type": [*kinds, UNUSED, UNUSED],
        "tokenizer.ggml.merges": [" ".join(merge) for merge in model["merges"]],
        "tokenizer.ggml.bos_token_id": tokens.index("<|bos|>"),
        "tokenizer.ggml.eos_token_id": tokens.index("<|im_end|>"),
    }
    rows = {"token_embd.weight": (len(tokens) + 2, 256)}
    given = {key: value for key, value in (values | more).items() if value is not None}
    return write_gguf_file(path, random_tensors(0, rows), TINY | given)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-bpe", "smollm", "gpt-2"])
def test_byte_level_bpe_is_rebuilt_to_the_id(
    name: str, trained: dict[str, Tokenizer], tmp_path: Path, texts: list[str]
) -> None:
    theirs = trained[name]
    theirs.encode_special_tokens = True
    ours = open_tokenizer(bpe_file(tmp_path / "x.gguf", theirs, name))
    different = [text for text in texts if ours.encode(text) != theirs.encode(text, add_special_tokens=False).ids]
    assert different == []
    assert all(ours.decode(ours.encode(text)) == text for text in texts)
    bos, end = (theirs.token_to_id(text) for text in ("<|bos|>", "<|im_end|>"))
    assert ours.bos_id == (bos if name == "llama-bpe" else None) and ours.eos_ids == (end,)
    assert ours.is_control(end) and not ours.is_control(theirs.token_to_id("<tool>"))
    size = theirs.get_vocab_size()
    assert ours.rows_without_piece(size + 2) == [size, size + 1]


@pytest.mark.slow
def test_the_files_of_a_folder_are_the_same_tokenizer(trained: dict[str, Tokenizer], tmp_path: Path, texts) -> None:
    template = "{{ bos_token }}{{ messages[0]['content'] }}"
    more = {"tokenizer.ggml.add_bos_token": True, "tokenizer.chat_template": template}
    path = bpe_file(tmp_path / "x.gguf", trained["smollm"], "smollm", **more)
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, content in tokenizer_files(read_header(path)).items():
        (folder / name).write_bytes(content)
    one, two = open_tokenizer(path), Ours(folder)
    assert [one.encode(text, bos=True) for text in texts] == [two.encode(text, bos=True) for text in texts]
    assert (one.bos_id, one.eos_ids, one.chat_template) == (two.bos_id, two.eos_ids, two.chat_template)
    assert one.chat_template == template and one.bos_id is not None
    assert dict(one.special_tokens) == dict(two.special_tokens)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tokenizer.ggml.pre": "deepseek-llm"}, r"tokenizer\.ggml\.pre must be one of .* got 'deepseek-llm'"),
        ({"tokenizer.ggml.pre": None}, r"tokenizer\.ggml\.pre must be one of .* got None"),
        ({"tokenizer.ggml.model": "t5"}, r"tokenizer\.ggml\.model must be 'llama' or 'gpt2', got 't5'"),
        (
            {"tokenizer.ggml.token_type": [1, 1]},
            r"tokenizer\.ggml\.token_type must have a number for each",
        ),
        ({"tokenizer.ggml.tokens": "abc"}, r"tokenizer\.ggml\.tokens must be a list of texts"),
        ({"tokenizer.ggml.merges": ["a nowhere"]}, r"x\.gguf: not a tokenizer\.json"),
    ],
)
def test_a_tokenizer_that_is_not_known_is_refused(
    more: dict[str, Any], says: str, trained: dict[str, Tokenizer], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says) as error:
        open_tokenizer(bpe_file(tmp_path / "x.gguf", trained["gpt-2"], "gpt-2", **more))
    assert "\n" not in str(error.value)


def test_a_file_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    path = write_gguf_file(tmp_path / "x.gguf", random_tensors())
    assert no_tokenizer_reason(path) == f"{path}: holds no tokenizer"
    with pytest.raises(ValueError, match="holds no tokenizer"):
        open_tokenizer(path)
