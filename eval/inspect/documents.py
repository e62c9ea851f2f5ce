"""The documents that an x-ray measures losses on: a file of them, or our own."""

from pathlib import Path

from lowrank.checkpoints.load import load_tokenizer
from lowrank.checkpoints.open_base import open_base
from lowrank.data.documents.document import make_documents
from lowrank.data.encoding.batching import Example, encode_all
from lowrank.data.imports.examples import read_conversations

SEED = 7


def documents(base: Path, data: Path | None, n: int, template: str = "alpaca") -> list[Example]:
    """Those of a JSONL file, or of our own, that fit into the context of a base, at most n

    n  0: none
    Raises ValueError for n below 0, and a file that is none of documents.
    """
    if not isinstance(n, int):
        raise ValueError(f"n must be an integer, got {n!r}")
    if n < 0:
        raise ValueError(f"n must be at least 0, got {n}")
    if n == 0:
        return []
    if data:
        conversations = read_conversations(data, is_preference=False)[:n]
    else:
        conversations = [entry.conversation for entry in make_documents(n, seed=SEED, split="test")]
    return encode_all(conversations, load_tokenizer(base), template, open_base(base).config.max_seq_len)[0]
