"""tokenizer.json: ids are those of the `tokenizers` library, and the bytes of the ids are the text."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tiny_tokenizers import SPECIAL, byte_level, random_texts, write_byte_level

from lowrank.model.tokenizer import Tokenizer
from lowrank.model.tokenizer.pieces import SPACE


@pytest.fixture(scope="module", params=[False, True], ids=["smollm2", "llama3"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_byte_level(tmp_path_factory.mktemp("json"), llama3=request.param)


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer(folder)


@pytest.mark.slow
def test_ids_are_those_of_the_library_and_bytes_those_of_the_text(folder: Path, tokenizer: Tokenizer) -> None:
    library = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    library.encode_special_tokens = True
    for text in random_texts(10_000):
        ids = tokenizer.encode(text)
        assert ids == library.encode(text, add_special_tokens=False).ids, ascii(text)
        assert b"".join(map(tokenizer.token_bytes, ids)) == text.encode()
        assert tokenizer.decode(ids) == text
        assert not any(map(tokenizer.is_control, ids)), ascii(text)


def test_a_text_begins_with_a_token_only_where_the_file_puts_one(tmp_path: Path) -> None:
    smollm2, llama3 = (Tokenizer(write_byte_level(tmp_path / str(is_one), llama3=is_one)) for is_one in (False, True))
    assert smollm2.bos_id is None and smollm2.encode("a", bos=True) == smollm2.encode("a")
    assert llama3.bos_id == 0 and llama3.encode("a", bos=True) == [0, *llama3.encode("a")]
    assert smollm2.eos_ids == llama3.eos_ids == (2,)
    assert smollm2.encode("a", eos=True)[-1] == 2


@pytest.mark.parametrize(("says", "begins"), [(True, 1), (False, None)])
def test_the_config_beside_it_has_the_last_word_on_the_begin_token(
    says: bool, begins: int | None, tmp_path: Path
) -> None:
    assert Tokenizer(write_byte_level(tmp_path, add_bos_token=says)).bos_id == begins


def test_pieces_show_a_space_as_every_kind_does(tokenizer: Tokenizer) -> None:
    pieces = [tokenizer.piece(token) for token in tokenizer.encode("the debt 🏦")]
    assert "".join(pieces) == f"the{SPACE}debt{SPACE}<0xF0><0x9F><0x8F><0xA6>"
    assert [tokenizer.piece(token) for token in range(3)] == list(SPECIAL)
    assert all(tokenizer.token_bytes(token) == b"" for token in range(3))


def test_a_sentencepiece_vocabulary_as_json_gives_sentencepieces_ids(tmp_path: Path, llama_json: Path) -> None:
    tokenizer = Tokenizer(llama_json)
    assert (tokenizer.has_dummy_prefix, tokenizer.bos_id, tokenizer.eos_ids) == (True, 1, (2,))
    ids = tokenizer.encode("Net income: 🏦")
    assert tokenizer.decode(ids) == "Net income: 🏦"
    assert b"".join(map(tokenizer.token_bytes, ids)) == " Net income: 🏦".encode()


@pytest.fixture
def llama_json(tmp_path: Path) -> Path:
    """SentencePiece written as JSON, as Hugging Face's Llama 2 is: a small vocabulary of letters and bytes."""
    letters = sorted(set("Net income: debt a"))
    texts = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), SPACE, *letters]
    library = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            {text: token for token, text in enumerate(dict.fromkeys(texts))},
            merges=[],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    library.normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.Prepend(SPACE), tokenizers.normalizers.Replace(" ", SPACE)]
    )
    library.decoder = tokenizers.decoders.Sequence(
        [
            tokenizers.decoders.Replace(SPACE, " "),
            tokenizers.decoders.ByteFallback(),
            tokenizers.decoders.Fuse(),
            tokenizers.decoders.Strip(" ", 1, 0),
        ]
    )
    library.add_special_tokens(["<unk>", "<s>", "</s>"])
    library.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    library.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    return tmp_path


def test_tokens_that_only_the_files_beside_it_add_are_added(tmp_path: Path) -> None:
    folder = write_byte_level(tmp_path)
    (folder / "added_tokens.json").write_text(json.dumps({"<|pad|>": 700}))
    tokenizer = Tokenizer(folder)
    assert (tokenizer.vocab_size, tokenizer.special_tokens["<|pad|>"], tokenizer.token_bytes(700)) == (701, 700, b"")
    assert 700 not in tokenizer.encode("a <|pad|> b")


def test_an_added_token_that_is_ordinary_is_a_piece_like_others(tmp_path: Path) -> None:
    library = byte_level()
    library.add_tokens([tokenizers.AddedToken("EBITDA é", normalized=False)])
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer(tmp_path)
    ids = tokenizer.encode("EBITDA é is")
    assert ids[0] == 700 and tokenizer.decode(ids) == "EBITDA é is" and tokenizer.piece(700) == "EBITDA é"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "not a tokenizer: it is empty"),
        (b"{}", "not a tokenizer.json: Model missing"),
        (b"\xff\xfe{}", "not JSON: .*can't decode"),
        (b"version https://git-lfs.github.com/spec/v1\n", "not a tokenizer: it is a pointer of Git LFS"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_named(content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"tokenizer\.json: {told}"):
        Tokenizer(tmp_path)


def test_a_vocabulary_that_does_not_stand_for_bytes_is_refused_by_its_decoder(tmp_path: Path) -> None:
    library = byte_level()
    library.decoder = tokenizers.decoders.WordPiece()
    library.save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"decoder must be of bytes .*, got \['WordPiece'\]"):
        Tokenizer(tmp_path)


def test_the_library_is_asked_for_by_its_name_where_it_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    folder = write_byte_level(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "tokenizers", None)
    with pytest.raises(ValueError, match=r"tokenizer\.json: tokenizers is missing: pip install tokenizers"):
        Tokenizer(folder)
