"""Meta's Llama 3: ids are tiktoken's own on the rank file, with the 256 special tokens behind them."""

from pathlib import Path

import pytest
import tiktoken
from tiny_tokenizers import random_texts, rank_file

from lowrank.model.tokenizer import Tokenizer
from lowrank.model.tokenizer.rank_pieces import PATTERN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "tokenizer.model").write_bytes(rank_file())
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.fixture(scope="module")
def encoding(folder: Path) -> tiktoken.Encoding:
    import base64

    lines = (folder / "tokenizer.model").read_bytes().splitlines()
    ranks = {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}
    return tiktoken.Encoding("test", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})


@pytest.mark.slow
def test_ids_are_tiktokens_and_bytes_those_of_the_text(tokenizer: Tokenizer, encoding: tiktoken.Encoding) -> None:
    for text in random_texts(10_000):
        ids = tokenizer.encode(text)
        assert ids == encoding.encode_ordinary(text), ascii(text)
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        assert tokenizer.decode(ids) == encoding.decode(ids) == text


def test_the_special_tokens_are_llama_3s_in_their_places(tokenizer: Tokenizer) -> None:
    ranks = tokenizer.vocab_size - 256
    places = {name: token - ranks for name, token in tokenizer.special_tokens.items()}
    assert len(places) == 256 and sorted(places.values()) == list(range(256))
    assert (places["<|begin_of_text|>"], places["<|end_of_text|>"]) == (0, 1)
    assert (places["<|start_header_id|>"], places["<|end_header_id|>"], places["<|eot_id|>"]) == (6, 7, 9)
    assert tokenizer.bos_id == ranks and tokenizer.eos_ids == (ranks + 1, ranks + 8, ranks + 9)
    assert tokenizer.encode("a", bos=True, eos=True)[::2] == [ranks, ranks + 1]
    assert max(tokenizer.encode("<|eot_id|>")) < ranks


@pytest.mark.slow
@pytest.mark.parametrize("text", ["a" * 60_000, " " * 60_000, "ab " * 200_000], ids=["letters", "spaces", "words"])
def test_long_runs_come_back_though_tiktoken_could_not_take_them(text: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"YQ== 0\nYg==\n", r":2: a line must be a token in base64 and its rank"),
        (b"YQ== 0\nYg== 2\n", r": ranks must be 0 to 1"),
        (b"YQ== 0\n", r": every byte must have a rank, 0x00 has none"),
    ],
)
def test_a_rank_file_that_is_broken_is_told_by_its_line(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(content)
    with pytest.raises(ValueError, match=rf"tokenizer\.model{told}"):
        Tokenizer(tmp_path)
