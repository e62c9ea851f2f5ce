"""Entries of a run: those that it learns from, those that it is measured on, and what is to be said of both."""

import hashlib
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lowrank.atomic_io import sha256_of
from lowrank.checkpoints.load import load_tokenizer
from lowrank.data.documents.document import Entry, make_documents
from lowrank.data.documents.kind_file import NAME, NAME_RULE, kind_of_text
from lowrank.data.documents.kinds import KINDS, add_kind
from lowrank.data.documents.spoiled import spoiled_preferences
from lowrank.data.drafting.draft import Example as Told
from lowrank.data.drafting.draft import draft_kind
from lowrank.data.encoding.batching import Example, encode, name_some, split_by_length
from lowrank.data.encoding.template import Conversation
from lowrank.data.imports.examples import Examples, first_fault, read_examples
from lowrank.data.imports.turns import shown
from lowrank.data.jsonl import write_lines
from lowrank.model.tokenizer import Tokenizer
from lowrank.text_file import no_file_reason, read_text

from .config import TrainConfig
from .config_tables import DataConfig
from .plan.plan import DOCUMENTS, missing_reason

DOCUMENTS_SEED = 7
TRAIN_DOCUMENTS, HELD_OUT_DOCUMENTS = 100, 20
SKIPPED = "skipped.jsonl"
DRAFTED = 200  # entries of a kind that is drafted


@dataclass
class RunData:
    """The data of a run.

    examples  what it learns from, in order; an entry of weight 2 is there twice
    held_out  what it is measured on; empty for nothing
    origin    where the examples come from, for the provenance of the hat
    notes     lines of text: what was left out, and what else the user may not expect
    skipped   rows that could not be learned: file, place and reason of each
    kinds     name -> the text of its file, of the kinds of document that are not ours
    learned_kinds  the kinds of the documents that it learns from, ours too
    """

    examples: list[Example] = field(default_factory=list)
    held_out: list[Example] = field(default_factory=list)
    origin: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)
    kinds: dict[str, str] = field(default_factory=dict)
    learned_kinds: set[str] = field(default_factory=set)

    def write_skipped(self, folder: Path) -> None:
        """The rows that could not be learned, a line each, in SKIPPED; no file if there are none."""
        if self.skipped:
            write_lines(folder / SKIPPED, self.skipped)


def read_run_data(config: TrainConfig, tokenizer: Tokenizer) -> RunData:
    """The entries of a config, encoded: those that are too long are left out and told.

    Raises ValueError, one line, for a file that is missing or has rows that cannot be learned (unless
    `data.skip_bad`), and if nothing is left to learn or to measure.
    """
    data, run = config.data, RunData()
    for path in data.kinds:
        text = read_text(path)
        kind = kind_of_text(text, f"data.kinds: {path}")
        add_kind(kind)
        run.kinds[kind.name] = text
    sources = data.sources
    learned: list[tuple[float, list[Example]]] = []
    origins, left_out = [], []
    for source, weight in zip(sources, data.weights or [1.0] * len(sources), strict=True):
        conversations, origin = _conversations(run, data, source, "data.train", bool(config.preference.loss))
        kept, long = _encoded(run, data, conversations, tokenizer, source, "data.train")
        learned.append((weight, kept))
        origins.append(origin | ({"weight": weight} if data.weights else {}))
        left_out += [example.id for example in long]
    if data.validation:
        run.held_out = _split_off(learned, data)
    for weight, examples in learned:
        run.examples += _weighted(examples, weight, data.seed)
    run.examples = _unlearned(run.examples, data.exclude)
    run.origin = {
        **(origins[0] if len(origins) == 1 else {"files": origins}),
        "entries": len(run.examples),
        "left_out": left_out,
        "examples_sha256": examples_sha256(run.examples),
    }
    if run.skipped:
        run.origin["skipped"] = len(run.skipped)
    if data.exclude:
        run.origin["excluded"] = list(data.exclude)
    if data.validation:
        run.origin["validation"] = {"entries": len(run.held_out), "seed": data.seed}
    if not run.examples:
        raise ValueError(f"data.weights = {data.weights} leave no entry to learn from")
    if config.watch.held_out and config.watch.every:
        run.held_out = _held_out(run, config, tokenizer)
    _note_overlap(run, config)
    return run


def encoded_or_none(config: TrainConfig) -> list[Example] | None:
    """The entries of a config as they would be learned; None if the data or the base's tokenizer are not there."""
    if missing_reason(config):
        return None
    return read_run_data(config, load_tokenizer(config.base.path)).examples


def examples_sha256(examples: Sequence[Example]) -> str:
    """SHA-256 of the tokens and labels that are learned from, in their order."""
    return hashlib.sha256(json.dumps([[example.tokens, example.labels] for example in examples]).encode()).hexdigest()


def difference_notes(config: TrainConfig, examples: Sequence[Example]) -> list[str]:
    """A line for each count of the data that is not what the recipe states."""
    counted = {
        "entries": len(examples),
        "tokens": sum(map(len, examples)),
        "supervised": sum(example.supervised for example in examples),
    }
    says = "estimates" if config.data.estimated else "states"
    return [
        f"data.{key}: {count:,} an epoch, the recipe {says} {stated:,} ({count / stated - 1:+.1%})"
        for key, count in counted.items()
        if (stated := getattr(config.data, key)) and count != stated
    ]


def _conversations(
    run: RunData, data: DataConfig, source: str, key: str, is_preference: bool
) -> tuple[list[Conversation], dict[str, Any]]:
    """The conversations of a source, and its entry in the provenance."""
    if source == DOCUMENTS:
        is_train = key == "data.train"
        n, split = (TRAIN_DOCUMENTS, "train") if is_train else (HELD_OUT_DOCUMENTS, "validation")
        entries = make_documents(n, seed=DOCUMENTS_SEED, split=split)
        if is_train:
            run.learned_kinds |= KINDS.keys()
        origin = {"made_by": "lowrank", "seed": DOCUMENTS_SEED}
        if is_preference:
            return list(spoiled_preferences(entries, DOCUMENTS_SEED)), {**origin, "rejected": "spoiled figures"}
        return [entry.conversation for entry in entries], origin
    path = Path(source)
    if reason := no_file_reason(path):
        raise ValueError(f"{key}: {path}: {reason}")
    read = read_examples(path, data.template, is_preference=is_preference)
    if read.faults and not data.skip_bad:
        raise ValueError(f"{key}: {first_fault(read)}; data.skip_bad = true leaves such rows out")
    if not read.conversations:
        fault = read.faults[0]
        raise ValueError(f"{key}: {path}: none of {read.rows} rows can be learned: {fault.place}: {fault}")
    _note_rows(run, read, key)
    if key == "data.train":
        _draft_kinds(run, read)
    return read.conversations, {"file": path.name, "sha256": sha256_of(path)}


def _note_rows(run: RunData, read: Examples, key: str) -> None:
    run.skipped += [{"file": str(read.path), "place": fault.place, "reason": str(fault)} for fault in read.faults]
    if read.faults:
        run.notes.append(
            f"{key}: {read.path}: {len(read.faults)} of {read.rows} rows cannot be learned and are left out, "
            f"each with its reason in {SKIPPED} of run.out"
        )
    if read.unread:
        keys = ", ".join(f"{shown(name)} ({count})" for name, count in read.unread.most_common(8))
        run.notes.append(f"{key}: {read.path}: nothing is learned from the keys {keys}")


def _draft_kinds(run: RunData, read: Examples) -> None:
    """The kinds that no file defines, drafted from their entries: instruction, fields and headings, and no sentence."""
    by_kind: dict[str, list[Entry]] = {}
    run.learned_kinds |= {entry.kind for entry in read.entries.values()}
    for entry in read.entries.values():
        if entry.kind not in KINDS and entry.kind not in run.kinds:
            by_kind.setdefault(entry.kind, []).append(entry)
    for name, entries in by_kind.items():
        if not NAME.fullmatch(name):
            run.notes.append(f"data.train: {read.path}: the hat stores no kind {name!r}: its name must be {NAME_RULE}")
            continue
        drafted = [Told(entry.instruction, entry.input, entry.output) for entry in entries[:DRAFTED]]
        run.kinds[name] = draft_kind(drafted, name, with_sentences=False).text


def _encoded(
    run: RunData, data: DataConfig, conversations: Sequence[Conversation], tokenizer: Tokenizer, source: str, key: str
) -> tuple[list[Example], list[Example]]:
    """Those that fit, and those that do not, of which the user is told."""
    examples = [encode(conversation, tokenizer, data.template) for conversation in conversations]
    kept, long = split_by_length(examples, data.max_tokens)
    if not kept:
        raise ValueError(f"{key}: {source}: data.max_tokens = {data.max_tokens} leaves none of {len(examples)} entries")
    if long:
        run.notes.append(
            f"{key}: {source}: {len(long)} of {len(examples)} entries have over {data.max_tokens} tokens and are left "
            f"out: {name_some([example.id for example in long])}"
        )
    return kept, long


def _split_off(learned: list[tuple[float, list[Example]]], data: DataConfig) -> list[Example]:
    """Takes `data.validation` entries out of what is learned: those of the lowest hash(seed, tokens).

    Equal entries stay together, so that none that is measured was learned.
    """
    everything = [example for _, examples in learned for example in examples]
    wanted = data.validation if data.validation >= 1 else max(1.0, round(data.validation * len(everything)))
    alike: dict[str, int] = {}
    for example in everything:
        key = _hash(example, data.seed)
        alike[key] = alike.get(key, 0) + 1
    chosen: set[str] = set()
    count = 0
    for key in sorted(alike):
        if count >= wanted:
            break
        chosen.add(key)
        count += alike[key]
    if count == len(everything):
        raise ValueError(f"data.validation = {data.validation:g} leaves none of {count} entries to learn from")
    for _, examples in learned:
        examples[:] = [example for example in examples if _hash(example, data.seed) not in chosen]
    return [example for example in everything if _hash(example, data.seed) in chosen]


def _hash(example: Example, seed: int) -> str:
    return hashlib.sha256(f"{seed}|{example.tokens}|{example.labels}".encode()).hexdigest()


def _weighted(examples: Sequence[Example], weight: float, seed: int) -> list[Example]:
    """The examples as often as the weight says: 2.5 is twice, and half of them, drawn by the seed, once more."""
    times = int(weight)
    more = random.Random(seed).sample(range(len(examples)), round((weight - times) * len(examples)))
    return [*list(examples) * times, *(examples[index] for index in sorted(more))]


def _unlearned(examples: list[Example], ids: Sequence[str]) -> list[Example]:
    """The examples in their order; of those with one of the ids, nothing is learned."""
    if unknown := sorted(set(ids) - {example.id for example in examples}):
        raise ValueError(
            f"data.exclude: {unknown[0]!r} is no entry that is learned: {name_some([one.id for one in examples])}"
        )
    found = [example.unlearned if example.id in ids else example for example in examples]
    if found and not any(example.supervised for example in found):
        raise ValueError(f"data.exclude leaves none of {len(found)} entries to learn from")
    return found


def _held_out(run: RunData, config: TrainConfig, tokenizer: Tokenizer) -> list[Example]:
    """The entries that `watch.held_out` names, without those too long to be learned."""
    source = config.watch.held_out
    conversations, _ = _conversations(run, config.data, source, "watch.held_out", bool(config.preference.loss))
    return _encoded(run, config.data, conversations, tokenizer, source, "watch.held_out")[0]


def _note_overlap(run: RunData, config: TrainConfig) -> None:
    learned = {example.tokens for example in run.examples}
    if both := sum(example.tokens in learned for example in run.held_out):
        run.notes.append(
            f"watch.held_out: {both} of {len(run.held_out)} entries are learned too: their loss says little of others"
        )
    if config.watch.held_out and not config.watch.every:
        run.notes.append("watch.held_out: never measured, watch.every is 0")
