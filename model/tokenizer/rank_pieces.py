"""tiktoken's ranks: the tokenizer.model of Meta's Llama 3, with Llama 3's pattern and its 256 special tokens."""

import base64
import binascii
import re
from collections.abc import Iterator, Sequence

from ...extras import need
from .pieces import joined, shown

# Llama 3's own, of Meta's tokenizer.py: what a text is cut into before bytes are merged.
PATTERN = "|".join(
    (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
        r"[^\r\n\p{L}\p{N}]?\p{L}+",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
# By Llama 3.1's names: Llama 3 calls those at 4, 5, 8 and 10 reserved, and uses none of them.
_NAMED = {
    0: "<|begin_of_text|>",
    1: "<|end_of_text|>",
    4: "<|finetune_right_pad_id|>",
    5: "<|step_id|>",
    6: "<|start_header_id|>",
    7: "<|end_header_id|>",
    8: "<|eom_id|>",
    9: "<|eot_id|>",
    10: "<|python_tag|>",
}
_SPECIALS = 256
_LONGEST = 400_000  # characters that tiktoken is given at once, and of them of one kind in a row: Meta's limits
_LONGEST_RUN = 25_000
_RUN = re.compile(rf"\s{{1,{_LONGEST_RUN}}}|\S{{1,{_LONGEST_RUN}}}")


def is_rank_file(content: bytes) -> bool:
    """True for a file whose first line is a token in base64 and its rank."""
    return re.match(rb"[A-Za-z0-9+/]+=* \d+\r?(\n|$)", content) is not None


class RankPieces:
    """ids = tiktoken's: the bytes of each part of a text, merged by the lowest rank first; special tokens behind them

    Raises ValueError naming the file and the line for what is no rank file.
    """

    def __init__(self, content: bytes, where: str) -> None:
        ranks = _read_ranks(content, where)
        tiktoken = need("tiktoken", where)
        self._encoding = tiktoken.Encoding(where, pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
        self._bytes = [token for token, _ in sorted(ranks.items(), key=lambda entry: entry[1])]
        self._own = len(ranks)
        self.size = self._own + _SPECIALS
        self.missing: frozenset[int] = frozenset()
        names = {place: _NAMED.get(place) for place in range(_SPECIALS)}
        reserved = iter(range(_SPECIALS))
        self._names = [name or f"<|reserved_special_token_{next(reserved)}|>" for name in names.values()]
        self.controls = {name: self._own + place for place, name in enumerate(self._names)}
        self.has_dummy_prefix = False
        self.begin: int | None = self.controls["<|begin_of_text|>"]
        self.end: int | None = self.controls["<|end_of_text|>"]
        self.more_ends = self.controls["<|eom_id|>"], self.controls["<|eot_id|>"]

    def encode(self, text: str) -> list[int]:
        """See `Pieces`."""
        return [token for part in _parts(text) for token in self._encoding.encode_ordinary(part)]

    def decode(self, ids: Sequence[int]) -> str:
        """See `Pieces`."""
        return joined(self, ids)

    def token_bytes(self, token: int) -> bytes:
        """See `Pieces`."""
        return self._bytes[token] if token < self._own else b""

    def piece(self, token: int) -> str:
        """See `Pieces`."""
        return shown(self._bytes[token]) if token < self._own else self._names[token - self._own]


def _parts(text: str) -> Iterator[str]:
    """The text as Meta's code hands it to tiktoken, which overflows its stack on long runs."""
    for start in range(0, len(text), _LONGEST):
        part = ""
        for run in _RUN.findall(text[start : start + _LONGEST]):
            if part and len(run) == _LONGEST_RUN:
                yield part
                part = ""
            part += run
        yield part


def _read_ranks(content: bytes, where: str) -> dict[bytes, int]:
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            token, rank = line.split()
            ranks[base64.b64decode(token, validate=True)] = int(rank)
        except (ValueError, binascii.Error):
            raise ValueError(f"{where}:{number}: a line must be a token in base64 and its rank, got {line!r}") from None
    if sorted(ranks.values()) != list(range(len(ranks))):
        raise ValueError(f"{where}: ranks must be 0 to {len(ranks) - 1}, each once")
    if absent := [byte for byte in range(256) if bytes([byte]) not in ranks]:
        raise ValueError(f"{where}: every byte must have a rank, 0x{absent[0]:02X} has none")
    return ranks
