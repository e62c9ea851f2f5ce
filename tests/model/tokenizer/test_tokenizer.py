"""The tokenizer of a folder: begin and end, added tokens, special tokens by id, and ids of every form."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_tokenizers import write_byte_level

from lowrank.model.tokenizer import Tokenizer


@pytest.fixture
def folder(embedded: Path, tmp_path: Path) -> Path:
    """A folder with the tokenizer of the embedded base, to put other files beside it."""
    shutil.copy(embedded / "tokenizer.model", tmp_path)
    return tmp_path


def write(folder: Path, **files: Any) -> Path:
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))
    return folder


def test_a_text_has_no_begin_and_no_end_unless_asked(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("x") == tokenizer.encode("x", bos=False, eos=False)
    assert tokenizer.encode("x", bos=True, eos=True) == [1, *tokenizer.encode("x"), 2]


@pytest.mark.parametrize(
    "form", [list, tuple, np.array, torch.tensor, lambda ids: np.array(ids, dtype=np.uint16), iter]
)
def test_ids_of_every_form_are_decoded(form: Any, tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(form(tokenizer.encode("Net income"))) == "Net income"


@pytest.mark.parametrize("foreign", [-1, 2048, 2**31, 2**64])
def test_an_id_that_is_no_piece_is_refused_in_one_line(foreign: int, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=rf"^an id must be one of 2048 pieces, got {foreign}$"):
        tokenizer.decode([5, foreign])


@pytest.mark.parametrize("wrong", [2.0, "a", None, torch.tensor([1, 2])])
def test_what_is_no_whole_number_is_no_id(wrong: Any, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="an id must be a whole number"):
        tokenizer.decode([wrong])


def test_every_end_that_the_files_name_ends_a_text_and_the_tokenizers_own_is_written(folder: Path) -> None:
    assert Tokenizer(write(folder, config={"eos_token_id": [2, 7]})).eos_ids == (2, 7)
    assert Tokenizer(write(folder, generation_config={"eos_token_id": [9, 2]})).eos_ids == (2, 9)
    assert Tokenizer(write(folder, generation_config={"eos_token_id": 8})).eos_ids == (2, 8)
    added = {"added_tokens": {"<|im_end|>": 2048}, "tokenizer_config": {"eos_token": "<|im_end|>"}}
    assert Tokenizer(write(folder, **added)).eos_ids == (2048, 2, 8)


def test_an_end_that_is_no_piece_is_told(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"config\.json: eos_token_id 50256 is no piece, and ends no text"):
        assert Tokenizer(write(folder, config={"eos_token_id": [2, 50256]})).eos_ids == (2,)


@pytest.mark.parametrize(("value", "told"), [("x", "token id, got 'x'"), (-1, "token id, got -1"), (True, "got True")])
def test_an_end_that_is_no_id_is_named_with_its_file(value: Any, told: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=rf"generation_config\.json: eos_token_id must be a .*{told}|{told}"):
        Tokenizer(write(folder, generation_config={"eos_token_id": value}))


def test_added_tokens_are_placed_by_id_alone_and_no_text_becomes_one(folder: Path) -> None:
    tokenizer = Tokenizer(write(folder, added_tokens={"[PAD]": 2048, "<|im_start|>": 2050}))
    assert (tokenizer.vocab_size, tokenizer.missing) == (2051, {2049})
    assert max(tokenizer.encode("[PAD] <|im_start|> </s>")) < 2048
    assert tokenizer.is_control(2050) and tokenizer.token_bytes(2050) == b"" and tokenizer.piece(2050) == "<|im_start|>"
    assert tokenizer.decode([2050, *tokenizer.encode("a"), 2048]) == "a"
    assert tokenizer.piece(2049) == "<no piece 2049>" and tokenizer.rows_without_piece(2053) == [2049, 2051, 2052]
    with pytest.raises(ValueError, match="an id must be one of 2050 pieces, got 2049"):
        tokenizer.decode([2049])


def test_an_added_token_that_a_file_calls_ordinary_is_cut_out_of_a_text(folder: Path) -> None:
    entry = {"2048": {"content": "EBITDA", "special": False}}
    tokenizer = Tokenizer(write(folder, tokenizer_config={"added_tokens_decoder": entry}))
    ids = tokenizer.encode("the EBITDA.")
    assert ids == [*tokenizer.encode("the "), 2048, *tokenizer.encode(".")]
    assert tokenizer.token_bytes(2048) == b"EBITDA" and not tokenizer.is_control(2048)


def test_a_begin_that_a_file_takes_away_is_not_put_before_a_text(folder: Path) -> None:
    assert Tokenizer(folder).bos_id == 1
    assert Tokenizer(write(folder, tokenizer_config={"add_bos_token": False})).bos_id is None


def test_the_special_tokens_of_a_trusted_text_become_ids_and_what_is_between_them_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer(write_byte_level(tmp_path))
    parts = tokenizer.split_special("<|im_start|>user\nhi<|im_end|>\n")
    assert parts == [1, "user\nhi", 2, "\n"]
    assert tokenizer.encode_parts(parts) == [1, *tokenizer.encode("user\nhi"), 2, *tokenizer.encode("\n")]
    assert tokenizer.encode_parts(["<|im_end|>"]) == tokenizer.encode("<|im_end|>") != [2]


def test_white_space_around_a_special_token_goes_where_the_token_says_so(folder: Path) -> None:
    entry = {"2048": {"content": "<x>", "lstrip": True, "rstrip": True}}
    tokenizer = Tokenizer(write(folder, tokenizer_config={"added_tokens_decoder": entry}))
    assert tokenizer.split_special("a <x> \nb</s> c") == ["a", 2048, "b", 2, " c"]


def test_special_tokens_without_a_row_are_left_out_and_pieces_are_not(folder: Path) -> None:
    tokenizer = Tokenizer(write(folder, added_tokens={"[PAD]": 2048}))
    assert tokenizer.drop_special(2049) == [] and tokenizer.vocab_size == 2049
    assert tokenizer.drop_special(2048) == ["[PAD]"] and tokenizer.vocab_size == 2048
    assert "[PAD]" not in tokenizer.special_tokens
    assert tokenizer.drop_special(2000) == [] and tokenizer.vocab_size == 2048


def test_of_two_tokenizers_in_a_folder_the_model_is_read(folder: Path, tmp_path: Path) -> None:
    write_byte_level(tmp_path / "json")
    shutil.copy(tmp_path / "json/tokenizer.json", folder)
    tokenizer = Tokenizer(folder)
    assert tokenizer.path == folder / "tokenizer.model" and tokenizer.has_dummy_prefix


def test_the_chat_template_is_that_of_its_own_file_or_of_the_config(folder: Path) -> None:
    assert Tokenizer(folder).chat_template is None
    several = [{"name": "tool_use", "template": "T"}, {"name": "default", "template": "D"}]
    assert Tokenizer(write(folder, tokenizer_config={"chat_template": several})).chat_template == "D"
    assert Tokenizer(write(folder, tokenizer_config={"chat_template": "C"})).chat_template == "C"
    (folder / "chat_template.jinja").write_text("J")
    assert Tokenizer(folder).chat_template == "J"


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"has no tokenizer: neither tokenizer\.model nor tokenizer\.json"):
        Tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"tokenizer_config": {"eos_token": 5}}, r"tokenizer_config\.json: eos_token must be a text, got 5"),
        ({"tokenizer_config": {"add_bos_token": "no"}}, "add_bos_token must be true or false, got 'no'"),
        ({"tokenizer_config": {"chat_template": 3}}, "chat_template must be a text, got int"),
        ({"added_tokens": {"x": "y"}}, r"added_tokens\.json: 'x' must be a token id, got 'y'"),
        ({"added_tokens": ["x"]}, r"added_tokens\.json: must hold a JSON object, got list"),
    ],
)
def test_a_file_of_another_form_is_told_with_its_key(files: dict[str, Any], told: str, folder: Path) -> None:
    with pytest.raises(ValueError, match=told):
        Tokenizer(write(folder, **files))
