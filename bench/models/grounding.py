"""The cost of grounded decoding: the time of its constraint alone, token by token, whatever the model takes.

    python -m lowrank.bench.models.grounding tokenizer.model --out bench/results

Documents of the test split, each as it is and with its figures spoiled in every way (`data.documents.spoiled`), are put
before the constraint token by token, as if a model had drawn them. Where one is refused, what may stand in its place is
asked for, and one of that is drawn. A text has a constraint of its own, as in `generate`; the tokenizer's tables are
made once, and timed apart. Bar: 0.5 ms a token with a vocabulary of 32,000.
"""

import argparse
import gc
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from lowrank.data.documents.document import Entry, make_documents
from lowrank.data.documents.spoiled import WAYS, spoil
from lowrank.grounding.decoding import Grounding
from lowrank.grounding.names import phrases_of
from lowrank.grounding.vocabulary import Vocabulary
from lowrank.model.tokenizer import Tokenizer

from .. import machine, rows
from .sides import where

DOCUMENTS, SEED = 50, 7


class Text(NamedTuple):
    """The cost of one text: milliseconds of each token, and the number of those that were refused."""

    ms: list[float]
    refused: int


def draws(entry: Entry, seed: int) -> list[str]:
    """The document of an entry, and what is left of it when its figures are spoiled, a text a way."""
    return [entry.output, *(text for way in WAYS if (text := spoil(entry, way, seed)) is not None)]


def measure(entry: Entry, drawn: Sequence[int], vocabulary: Vocabulary, likes: torch.Tensor) -> Text:
    """Time of the constraint of one text.

    drawn   the tokens that a model draws, one after the other
    likes   float32 [V], by which one of the tokens is taken that may stand in another's place
    """
    grounding = Grounding(entry.facts, vocabulary, phrases_of(entry.kind))
    taken: list[float] = []
    refused = 0
    for token in drawn:
        start = time.perf_counter()
        place = None if grounding.is_allowed(token) else grounding.instead(token)
        asked = time.perf_counter() - start
        if place is not None:
            refused += 1
            token = int(likes[: len(place)].masked_fill(~place, float("-inf")).argmax())
        start = time.perf_counter()
        grounding.take(token)
        taken.append(1e3 * (asked + time.perf_counter() - start))
        if token in vocabulary.eos_ids:
            break
    return Text(taken, refused)


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status 2 for a tokenizer that cannot be read."""
    parser = argparse.ArgumentParser(
        "python -m lowrank.bench.models.grounding", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.model, or a folder that holds a tokenizer")
    parser.add_argument("--n", type=int, default=DOCUMENTS, help="documents (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="add a row to its grounding.jsonl")
    args = parser.parse_args(arguments)
    try:
        tokenizer = Tokenizer(args.tokenizer)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    threads = machine.pin(1)
    meter = machine.LoadMeter()
    start = time.perf_counter()
    vocabulary = Vocabulary(tokenizer)
    tables = time.perf_counter() - start
    gc.freeze()  # as `lowrank generate` does: a collection of all that was imported takes 0.2 s
    likes = torch.rand(vocabulary.size, generator=torch.Generator().manual_seed(0))
    found = [
        measure(entry, tokenizer.encode(text), vocabulary, likes)
        for entry in make_documents(args.n, seed=SEED, split="test")
        for text in draws(entry, SEED)
    ]
    load = meter.load()
    every = sorted(ms for text in found for ms in text.ms)
    by_text = sorted(sum(text.ms) / len(text.ms) for text in found)
    row: rows.Row = {"bench": "grounding", "tokenizer": args.tokenizer.name, "vocabulary": vocabulary.size}
    row |= {"texts": len(found), "tokens": len(every), "refused": sum(text.refused for text in found)}
    row |= {"ms_a_token": sum(every) / len(every), "ms_median": every[len(every) // 2], "ms_longest": every[-1]}
    row |= {"ms_by_text": [by_text[0], by_text[len(by_text) // 2], by_text[-1]], "tables_s": tables}
    row |= where(threads, load, ["torch"]) | {"load": vars(load)}
    print(
        f"{row['ms_a_token']:.3f} ms a token (median {row['ms_median']:.3f}, longest {row['ms_longest']:.1f}; "
        f"by text {by_text[0]:.3f} to {by_text[-1]:.3f}): {len(every):,} tokens of {len(found)} texts, "
        f"{row['refused']:,} of them refused"
    )
    print(f"{tables:.2f} s for the tables of {vocabulary.size:,} pieces, once")
    if load.is_busy:
        print(f"not quiet: {load.others:.0%} of the processor went to others", file=sys.stderr)
    if args.out:
        rows.append(args.out / "grounding.jsonl", [row])
    return 0


if __name__ == "__main__":
    sys.exit(main())
