"""The tokenizer in a GGUF file, as the files that lie beside weights in a folder.

    tokenizer.model        of "llama": SentencePiece's protocol buffer, built from pieces, scores and kinds
    tokenizer.json         of "gpt2": byte-level BPE, built from tokens, merges and the name of the pre-tokenizer
    tokenizer_config.json  begin, end and unknown token, whether a text gets a begin token, tokens that are no text
    generation_config.json the tokens that end a text
    chat_template.jinja    the model's own chat template

A GGUF file names its pre-tokenizer and does not hold it: a name that is not known here is refused, for with another one
texts would be cut in other places, and nothing would say so.
"""

import json
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from ..model.tokenizer import Tokenizer
from ..model.tokenizer.json_pieces import JsonPieces
from ..model.tokenizer.pieces import Pieces
from ..model.tokenizer.roles import NAMED, Roles
from ..model.tokenizer.sentencepiece_pieces import SentencePiecePieces
from .header import Header

NO_VOCABULARY = ("no_vocab", "none")  # how a file says that it holds no tokenizer
# Kinds of tokens (llama.h). A piece that is UNUSED fills up a vocabulary: it has no text.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)
# What ends an answer beside the end token, if it is a control token: llama.cpp finds it by its text (llama-vocab.cpp).
END_TEXTS = frozenset(
    ("<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>", "<|eom_id|>", "<|end_of_text|>", "<|endoftext|>", "</s>")
)

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|"
    r"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


class PreTokenizer(NamedTuple):
    """Patterns that cut a text one after the other; and two things that follow from the name, as in llama.cpp.

    ignore_merges  a part that is a token itself is that token, whatever merges would make of it
    adds_bos       a text begins with a begin token where the file does not say
    """

    patterns: tuple[str, ...]
    ignore_merges: bool = False
    adds_bos: bool = False


_LLAMA3 = PreTokenizer((_CL100K % "{1,3}",), ignore_merges=True, adds_bos=True)
DIGIT = r"\p{N}"
_DIGITS = PreTokenizer((DIGIT, GPT2))
PRE_TOKENIZERS = {
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "smaug-bpe": PreTokenizer((_CL100K % "{1,3}",)),
    "qwen2": PreTokenizer((_CL100K % "",)),
    "deepseek-r1-qwen": PreTokenizer((_CL100K % "",)),
    "tekken": PreTokenizer((_TEKKEN,), ignore_merges=True, adds_bos=True),
    "smollm": _DIGITS,
    "starcoder": _DIGITS,
    "refact": _DIGITS,
    "command-r": _DIGITS,
    "codeshell": _DIGITS,
    "exaone": _DIGITS,
    "gpt-2": PreTokenizer((GPT2,)),
    "olmo": PreTokenizer((GPT2,)),
}


def tokenizer_files(header: Header) -> dict[str, bytes]:
    """The files by their names; none where the header says "no_vocab", or nothing.

    Raises ValueError naming file and key for a tokenizer of another kind, a pre-tokenizer that is not known, and lists
    that do not fit each other.
    """
    vocabulary = _Vocabulary.of(header)
    if vocabulary is None:
        return {}
    if vocabulary.kind == "llama":
        space_prefix, merges_spaces = (
            bool(header.values.get(f"tokenizer.ggml.{key}", default))
            for key, default in (("add_space_prefix", True), ("remove_extra_whitespaces", False))
        )
        files = {"tokenizer.model": _sentencepiece(vocabulary, space_prefix, merges_spaces)}
        adds_bos = True
    else:
        pre = _pre_tokenizer(header)
        files = {"tokenizer.json": _json_bytes(_byte_level(vocabulary, pre))}
        adds_bos = pre.adds_bos
    adds_bos = bool(header.values.get("tokenizer.ggml.add_bos_token", adds_bos))
    files["tokenizer_config.json"] = _json_bytes(_roles(vocabulary, adds_bos))
    files["generation_config.json"] = _json_bytes(_generation(vocabulary))
    template = header.values.get("tokenizer.chat_template")
    if isinstance(template, str) and template:
        files["chat_template.jinja"] = template.encode()
    return files


def tokenizer_of(header: Header) -> Tokenizer | None:
    """The tokenizer itself, which is that of the files; None where the header holds none.

    Raises ValueError as `tokenizer_files` does.
    """
    files = tokenizer_files(header)
    if not files:
        return None
    config, generation = (json.loads(files[name]) for name in ("tokenizer_config.json", "generation_config.json"))
    ends, template = generation.get("eos_token_id", []), files.get("chat_template.jinja")
    named = {name: config[name] for name in NAMED if name in config}
    roles = Roles(
        named=named,
        special=tuple(named.values()),
        adds_bos=config["add_bos_token"],
        ends=(ends,) if isinstance(ends, int) else tuple(ends),
        ends_file=f"{header.path}: tokenizer.ggml",
        chat_template=None if template is None else template.decode(),
    )
    pieces: Pieces
    if "tokenizer.model" in files:
        pieces = SentencePiecePieces(files["tokenizer.model"], str(header.path))
    else:
        pieces = JsonPieces.read(files["tokenizer.json"].decode(), str(header.path), roles)
    return Tokenizer.of(pieces, roles, header.path)


class _Vocabulary(NamedTuple):
    kind: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    scores: Sequence[float]
    merges: Sequence[str]
    roles: dict[str, int]  # "bos", "eos", "unknown", ... -> id

    @classmethod
    def of(cls, header: Header) -> "_Vocabulary | None":
        path, values = header.path, header.values
        kind = values.get("tokenizer.ggml.model", NO_VOCABULARY[0])
        if kind in NO_VOCABULARY:
            return None
        if kind not in ("llama", "gpt2"):
            raise ValueError(f"{path}: tokenizer.ggml.model must be 'llama' or 'gpt2', got {kind!r}")
        tokens = values.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, list) or not tokens:
            raise ValueError(f"{path}: tokenizer.ggml.tokens must be a list of texts")
        embedding = header.tensors.get("token_embd.weight")
        if embedding is not None and len(tokens) > embedding.shape[0]:
            rows = embedding.shape[0]
            raise ValueError(f"{path}: tokenizer.ggml.tokens has {len(tokens)}, the embedding {rows} rows")
        kinds = [int(kind) for kind in _listed(header, "token_type", len(tokens), NORMAL)]
        scores = [float(score) for score in _listed(header, "scores", len(tokens), 0.0)]
        merges = values.get("tokenizer.ggml.merges", [])
        if not isinstance(merges, list):
            raise ValueError(f"{path}: tokenizer.ggml.merges must be a list of texts")
        defaults = {"bos": 1, "eos": 2, "unknown": 0} if kind == "llama" else {}
        roles = {}
        for role in ("bos", "eos", "unknown", "padding", "eot", "eom"):
            found = values.get(f"tokenizer.ggml.{role}_token_id", defaults.get(role))
            if isinstance(found, int) and 0 <= found < len(tokens):
                roles[role] = found
        return cls(kind, tokens, kinds, scores, merges, roles)


def _listed(header: Header, key: str, count: int, default: float) -> Sequence[Any]:
    """A number for each token."""
    found = header.values.get(f"tokenizer.ggml.{key}")
    if found is None:
        return [default] * count
    if isinstance(found, str | int | float) or len(found) != count or (count and isinstance(found[0], str)):
        raise ValueError(f"{header.path}: tokenizer.ggml.{key} must have a number for each of {count} tokens")
    return list(found)


def _pre_tokenizer(header: Header) -> PreTokenizer:
    name = header.values.get("tokenizer.ggml.pre")
    if name not in PRE_TOKENIZERS:
        raise ValueError(
            f"{header.path}: tokenizer.ggml.pre must be one of {', '.join(PRE_TOKENIZERS)}, got {name!r}: where texts "
            "are cut is not known"
        )
    return PRE_TOKENIZERS[name]


def _byte_level(vocabulary: _Vocabulary, pre: PreTokenizer) -> dict[str, Any]:
    """tokenizer.json: tokens are in GPT-2's letters for bytes; control and user-defined ones are texts as they are."""
    added = [
        {
            "id": id,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind == CONTROL,
        }
        for id, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED)
    ]
    splits = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in pre.patterns
    ]
    letters = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [*splits, letters]},
        "post_processor": letters,
        "decoder": letters,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre.ignore_merges,
            "vocab": {
                token: id
                for id, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
                if kind != UNUSED
            },
            "merges": [list(_pair(merge)) for merge in vocabulary.merges],
        },
    }


def _pair(merge: str) -> tuple[str, str]:
    """ "Ġ t" -> ("Ġ", "t"): the first space after the first letter parts them, as in llama.cpp."""
    at = merge.find(" ", 1)
    return merge[:at], merge[at + 1 :]


def _roles(vocabulary: _Vocabulary, adds_bos: bool) -> dict[str, Any]:
    """tokenizer_config.json."""
    names = {"bos": "bos_token", "eos": "eos_token", "unknown": "unk_token", "padding": "pad_token"}
    named = {
        name: vocabulary.tokens[vocabulary.roles[role]] for role, name in names.items() if role in vocabulary.roles
    }
    kind = "LlamaTokenizer" if vocabulary.kind == "llama" else "PreTrainedTokenizerFast"
    return {"tokenizer_class": kind, "add_bos_token": adds_bos, "add_eos_token": False, **named}


def _generation(vocabulary: _Vocabulary) -> dict[str, Any]:
    """generation_config.json: the end token first, then what else ends an answer."""
    ends = [vocabulary.roles[role] for role in ("eos", "eot", "eom") if role in vocabulary.roles]
    ends += [
        id
        for id, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind == CONTROL and token in END_TEXTS
    ]
    found = list(dict.fromkeys(ends))
    values: dict[str, Any] = {"eos_token_id": found[0] if len(found) == 1 else found} if found else {}
    if "bos" in vocabulary.roles:
        values["bos_token_id"] = vocabulary.roles["bos"]
    return values


def _json_bytes(values: dict[str, Any]) -> bytes:
    return json.dumps(values, ensure_ascii=False, indent=2).encode() + b"\n"


def _sentencepiece(vocabulary: _Vocabulary, space_prefix: bool, merges_spaces: bool) -> bytes:
    """ModelProto: pieces, and the specs that say BPE with bytes for what has no piece, and that no text is normalized.

    The numbers of the fields are those of sentencepiece_model.proto.
    """
    pieces = (
        _field(1, _field(1, token.encode()) + _tag(2, _FLOAT) + struct.pack("<f", score) + _field(3, kind))
        for token, score, kind in zip(vocabulary.tokens, vocabulary.scores, vocabulary.kinds, strict=True)
    )
    roles = vocabulary.roles
    trainer: list[tuple[int, int | bytes]] = [(3, _BPE), (4, len(vocabulary.tokens)), (35, BYTE in vocabulary.kinds)]
    # -1, no such token, is what follows from a pad_id that is left out and may not follow for the other three.
    trainer += [(number, roles.get(role, -1)) for number, role in ((40, "unknown"), (41, "bos"), (42, "eos"))]
    normalizer: list[tuple[int, int | bytes]] = [(1, b"identity"), (3, space_prefix), (4, merges_spaces), (5, True)]
    specs = (b"".join(_field(number, value) for number, value in spec) for spec in (trainer, normalizer))
    return b"".join([*pieces, *(_field(number, spec) for number, spec in zip((2, 3), specs, strict=True))])


_BPE = 2
_VARINT, _BYTES, _FLOAT = 0, 2, 5  # wire types of protocol buffers


def _field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, bytes):
        return _tag(number, _BYTES) + _varint(len(value)) + value
    return _tag(number, _VARINT) + _varint(value % 2**64)


def _tag(number: int, wire_type: int) -> bytes:
    return _varint(number << 3 | wire_type)


def _varint(value: int) -> bytes:
    written = b""
    while value > 0x7F:
        written += bytes([value & 0x7F | 0x80])
        value >>= 7
    return written + bytes([value])
