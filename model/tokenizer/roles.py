"""Statements of the files beside a tokenizer: begin, end and added tokens, and the chat template.

tokenizer_config.json    bos_token, eos_token, ..., add_bos_token, added_tokens_decoder, chat_template
special_tokens_map.json  bos_token, eos_token, ...
added_tokens.json        text -> id of tokens behind the vocabulary
tokenizer.json           its added_tokens, also where tokenizer.model is read
generation_config.json   eos_token_id: one or several; where it names none, config.json's
chat_template.jinja      the chat template, before that of tokenizer_config.json
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..config_json import read_json

NAMED = ("bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token", "mask_token")


@dataclass(frozen=True)
class AddedToken:
    """A token behind, or beside, the vocabulary.

    special  a control token: no text is ever cut into it. Where no file calls an added token ordinary it is special
    lstrip, rstrip   it takes the white space before it, or behind it, away
    """

    text: str
    special: bool = True
    lstrip: bool = False
    rstrip: bool = False


@dataclass(frozen=True)
class Roles:
    """
    added          the added tokens by their ids
    named          "bos_token", "eos_token", ... -> the text of that token
    special        texts of further tokens that are special
    adds_bos       True or False where a file says that a text begins with a begin token, or does not
    ends           file -> eos_token_id as it says it
    chat_template  the text of the model's own template; None if there is none
    """

    added: Mapping[int, AddedToken] = field(default_factory=dict)
    named: Mapping[str, str] = field(default_factory=dict)
    special: tuple[str, ...] = ()
    adds_bos: bool | None = None
    ends: tuple[int, ...] = ()
    ends_file: str = ""
    chat_template: str | None = None


def read_roles(folder: Path) -> Roles:
    """The roles that the files of a folder give to tokens; a file that is not there says nothing.

    Raises ValueError naming file and key for what is not of the form that it must have.
    """
    config, config_file = _read(folder / "tokenizer_config.json"), folder / "tokenizer_config.json"
    special_map, map_file = _read(folder / "special_tokens_map.json"), folder / "special_tokens_map.json"
    named: dict[str, str] = {}
    special: list[str] = []
    for values, file in ((special_map, map_file), (config, config_file)):
        for name in NAMED:
            if values.get(name) is not None:
                named[name] = _text(values[name], f"{file}: {name}")
        for key in ("additional_special_tokens", "extra_special_tokens"):
            more = values.get(key) or []
            special += [_text(value, f"{file}: {key}") for value in (more.values() if isinstance(more, dict) else more)]
    special += named.values()
    adds_bos = config.get("add_bos_token")
    if adds_bos not in (None, True, False):
        raise ValueError(f"{config_file}: add_bos_token must be true or false, got {adds_bos!r}")
    ends, ends_file = _ends(folder)
    added = {
        token: replaced_special(one, special)
        for source in (_from_added_tokens(folder), _from_tokenizer_json(folder), _from_config(config, config_file))
        for token, one in source
    }
    return Roles(added, named, tuple(special), adds_bos, ends, ends_file, _chat_template(folder, config, config_file))


def replaced_special(token: AddedToken, special: list[str]) -> AddedToken:
    """The token, special if it is named as one."""
    return AddedToken(token.text, True, token.lstrip, token.rstrip) if token.text in special else token


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _text(value: Any, where: str) -> str:
    """The text of a token that a file writes as it is, or as {"content": ...}."""
    text = value.get("content") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise ValueError(f"{where} must be a text, got {value!r}")
    return text


def _id(value: Any, where: str) -> int:
    if isinstance(value, str) and value.isdecimal():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError(f"{where} must be a token id, got {value!r}")
    return value


def _from_added_tokens(folder: Path) -> Iterator[tuple[int, AddedToken]]:
    path = folder / "added_tokens.json"
    for text, token in _read(path).items():
        yield _id(token, f"{path}: {text!r}"), AddedToken(text)


def _from_tokenizer_json(folder: Path) -> Iterator[tuple[int, AddedToken]]:
    path = folder / "tokenizer.json"
    entries = _read(path).get("added_tokens") or []
    if not isinstance(entries, list):
        raise ValueError(f"{path}: added_tokens must be a list, got {type(entries).__name__}")
    for entry in entries:
        if not isinstance(entry, dict) or "id" not in entry:
            raise ValueError(f"{path}: added_tokens: an entry must have an id and a content, got {entry!r}")
        yield _id(entry["id"], f"{path}: added_tokens: id"), _added(entry, f"{path}: added_tokens")


def _from_config(config: Mapping[str, Any], file: Path) -> Iterator[tuple[int, AddedToken]]:
    where = f"{file}: added_tokens_decoder"
    entries = config.get("added_tokens_decoder") or {}
    if not isinstance(entries, dict):
        raise ValueError(f"{where} must be an object, got {type(entries).__name__}")
    for token, entry in entries.items():
        yield _id(token, where), _added(entry, where)


def _added(entry: Any, where: str) -> AddedToken:
    flags = entry if isinstance(entry, dict) else {}
    return AddedToken(
        _text(entry, where),
        bool(flags.get("special", True)),
        bool(flags.get("lstrip", False)),
        bool(flags.get("rstrip", False)),
    )


def _ends(folder: Path) -> tuple[tuple[int, ...], str]:
    """eos_token_id of generation_config.json, or of config.json where that names none; and the file that says it."""
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        value = _read(path).get("eos_token_id")
        if value is not None:
            values = value if isinstance(value, list) else [value]
            return tuple(_id(one, f"{path}: eos_token_id") for one in values), str(path)
    return (), ""


def _chat_template(folder: Path, config: Mapping[str, Any], file: Path) -> str | None:
    """The template of a file of its own, else that of tokenizer_config.json; of several, the one named "default"."""
    path = folder / "chat_template.jinja"
    if path.is_file():
        return path.read_text(encoding="utf-8")
    template = config.get("chat_template")
    if template is None:
        file = folder / "chat_template.json"
        template = _read(file).get("chat_template")
    if isinstance(template, list):
        several = {entry.get("name"): entry.get("template") for entry in template if isinstance(entry, dict)}
        template = several.get("default")
    if template is not None and not isinstance(template, str):
        raise ValueError(f"{file}: chat_template must be a text, got {type(template).__name__}")
    return template
