"""Builds the tasks that `lowrank eval --tasks` names, from local files."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..kinds import add_stored, given_kind

if TYPE_CHECKING:
    from ...data.documents.document import Entry
    from ...eval.tasks.task import Task

TASKS = ("documents", "sentiment", "ner", "qa")
DOCUMENTS, QUESTIONS = 20, 200


def build_tasks(args: argparse.Namespace, adapters: Mapping[str, Path]) -> "list[Task]":
    """The tasks of --tasks.  Raises ValueError for one that is unknown, or whose data is not at hand."""
    from ...data.imports.examples import read_conversations

    names = args.tasks.split(",")
    for name in names:
        if name not in TASKS:
            raise ValueError(f"--tasks must be of {', '.join(TASKS)}, got {name!r}")
    if args.n is not None and args.n < 1:
        raise ValueError(f"--n must leave at least one document or item, got {args.n}")
    trained = [conversation for path in args.trained_on for conversation in read_conversations(path)]
    outputs = [turn.output for conversation in trained for turn in conversation.turns if turn.output is not None]
    questions = [turn.input for conversation in trained for turn in conversation.turns]
    return [_task(name, args, adapters, outputs, questions) for name in names]


def _task(
    name: str, args: argparse.Namespace, adapters: Mapping[str, Path], outputs: list[str], questions: list[str]
) -> "Task":
    from ...data.documents.document import make_documents
    from ...eval.tasks import public_data
    from ...eval.tasks.documents import Documents
    from ...eval.tasks.entities import Entities
    from ...eval.tasks.questions import Questions
    from ...eval.tasks.sentiment import Sentiment

    if name == "documents":
        n = args.n or DOCUMENTS
        add_stored(adapters.values())
        kind = given_kind(args.kind)
        entries = _entries(args.data, kind)[:n] if args.data else make_documents(n, seed=7, split="test")
        return Documents(entries, training=outputs or _own_training(adapters), overlap=args.overlap)
    if args.public is None:
        raise ValueError(f"--tasks {name} needs --from DIR: the public sets, which are not part of this package")
    if name == "sentiment":
        return Sentiment(public_data.some(public_data.sentiment_rows(args.public), args.n))
    if name == "ner":
        return Entities(public_data.some(public_data.ner_rows(args.public), args.n))
    _check_trained_on(adapters, args.trained_on)
    return Questions(public_data.some(public_data.question_rows(args.public, questions), args.n or QUESTIONS))


def _entries(path: Path, kind: str | None) -> "list[Entry]":
    """The documents of a file in any form that training takes, of which each has its facts.

    kind  that of documents which do not say theirs
    Raises ValueError for a file of which a row has none.
    """
    from ...data.documents.document import read_jsonl
    from ...data.documents.kinds import find_kind
    from ...data.imports.examples import summary
    from ...data.imports.importing import import_documents, read_documents

    definition = find_kind(kind) if kind is not None else None
    documents = read_documents(path, instruction=definition.instruction() if definition is not None else None)
    if documents.format == "entry":
        return read_jsonl(path)
    imported = import_documents(documents, kind=kind, license="unspecified")
    if imported.faults:
        raise ValueError(f"--data {path}:{summary(imported.faults)[0]}: a document is checked against its facts")
    return imported.entries


def _own_training(adapters: Mapping[str, Path]) -> list[str]:
    """The texts of our own documents that hats say they were trained on."""
    from ...checkpoints.fingerprint import read_record
    from ...data.documents.document import make_documents

    data = [read_record(path).get("data", {}) for path in adapters.values()]
    seeds = sorted({int(record["seed"]) for record in data if record.get("made_by") == "lowrank"})
    return [entry.output for seed in seeds for entry in make_documents(100, seed=seed, split="train")]


def _check_trained_on(adapters: Mapping[str, Path], files: Sequence[Path]) -> None:
    """Raises ValueError for a hat whose training file is not named, so that no question of it could be left out."""
    from ...atomic_io import sha256_of
    from ...checkpoints.fingerprint import read_record

    known = {sha256_of(path) for path in files}
    for name, path in adapters.items():
        data = read_record(path).get("data", {})
        if data.get("made_by") != "lowrank" and data.get("sha256") not in known:
            file = data.get("file", "an unknown file")
            raise ValueError(f"--tasks qa: {name} was trained on {file}: name it by --trained-on, to leave it out")
