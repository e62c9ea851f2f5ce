"""lowrank generate --out: a document a record of a table, each with its audit, in a folder that can be gone on with."""

import argparse
import contextlib
import errno
import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...data.documents.facts_record import FactsRecord, known_kind, read_records
from ...data.documents.kind import Kind
from ...data.documents.reading import count
from ..arguments import cache_bytes
from ..kinds import check_kind, chosen_kind
from .session import GenerationSession, shown

if TYPE_CHECKING:
    from ...model.sampling import SamplingOptions
    from ...writing.job import Document, Job
    from ...writing.sharing import OneProcess

BATCH = 8
# Disks, and quotas, that are full.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_documents(args: argparse.Namespace, sampling: "SamplingOptions") -> int:
    """Writes the folder; returns the exit status."""
    from ...writing.file_names import file_names
    from ...writing.job import Job
    from ...writing.sharing import processes
    from . import active_adapters, open_session, read_use

    formats = read_formats(args)
    use = read_use(args.use, [name for name, _ in args.adapter])
    kind = chosen_kind(args.kind, [path for _, path in args.adapter])
    check_kind(kind, active_adapters(args, [use]), force=args.force)
    records, notes = read_records(args.facts, kind, args.derive, locale=args.locale)
    names = file_names([record.name for record in records])
    job = Job(args.out, about(args, sampling, kind, formats, shown(use)), formats, names)
    team = processes()
    resume = args.resume or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    if team.rank == 0:
        job.check(resume)
        for note in (f"{args.facts}: {count(len(records), 'record')}", *notes):
            print(note, file=sys.stderr)
    session = open_session(args, sampling)
    session.use = use
    job.about["base"] = {"name": args.base, "fingerprint": session.model.source.get("fingerprint")}
    check_lengths(session, records, args.facts, cache_bytes(args) if session.joins_rows() else None)
    begun = time.monotonic()
    if team.rank == 0:
        with job.opened(resume) as waiting:
            told = finish(args, job, session, records, team, waiting)
            with errors_with_counts(job):
                summary = job.summarize(notes)
        tell(args, summary, told, time.monotonic() - begun)
    else:
        finish(args, job, session, records, team, None)
    team.close()
    return 0


def read_formats(args: argparse.Namespace) -> tuple[str, ...]:
    """The formats of --format, each once.  Raises ValueError for others, and for options that --out does not take."""
    from ...extras import need
    from ...writing.job import FORMATS

    if args.facts is None:
        raise ValueError("--out needs --facts: a table with a record a document")
    refused = ("watch", "compare", "html", "record")
    if (name := next((name for name in refused if getattr(args, name)), None)) is not None:
        raise ValueError(f"--{name} is of one text: --out writes a document for each record")
    if args.batch is not None and args.batch < 1:
        raise ValueError(f"--batch must be at least 1, got {args.batch}")
    formats = tuple(dict.fromkeys(part.strip() for part in (args.format or FORMATS[0]).split(",")))
    if strange := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"--format must be some of {','.join(FORMATS)}, got {strange[0]!r}")
    need("markdown_it", "--out")
    if "docx" in formats:
        need("docx", "--format docx")
    return formats


def about(
    args: argparse.Namespace, sampling: "SamplingOptions", kind: str, formats: Sequence[str], use: str
) -> dict[str, Any]:
    """All that the texts depend on, but the base, which is known once it is loaded."""
    from ...atomic_io import sha256_of

    return {
        "facts": {"file": args.facts.name, "sha256": sha256_of(args.facts)},
        "kind": {"name": kind, "sha256": kind_sha256(known_kind(kind))},
        "use": use,
        "hats": {name: adapter_sha256(path) for name, path in args.adapter},
        "weights": args.weights,
        "head": args.head,
        "dtype": args.dtype,
        "cache": args.cache,
        "template": args.template,
        "grounded": args.grounded,
        "derive": list(args.derive),
        "locale": args.locale,
        "max_new_tokens": args.max_new_tokens,
        "stop": list(args.stop),
        **sampling,
        "formats": list(formats),
    }


def kind_sha256(kind: Kind) -> str:
    """The hash of all of a kind that a text depends on: instruction, names, types and formulas of fields, headings."""
    fields = {
        key: (field.labels, field.also, field.type, field.source if isinstance(field.source, str) else None)
        for key, field in kind.fields.items()
    }
    parts = [kind.name, kind.instruction(), fields, kind.required_sections]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def adapter_sha256(path: Path) -> str:
    """The hash of a hat's matrices."""
    from ...adapters.files import WEIGHTS_FILE
    from ...atomic_io import sha256_of

    file = path if path.is_file() else path / WEIGHTS_FILE
    if not file.is_file():
        raise ValueError(f"{file}: no such file, so {path} is no hat")
    return sha256_of(file)


def check_lengths(session: GenerationSession, records: Sequence[FactsRecord], path: Path, limit: int | None) -> None:
    """Raises ValueError naming the first record whose prompt leaves the model no room to write, or its cache none.

    limit  of keys and values in bytes, if there is one
    """
    from ...model.continuous_batch import bytes_a_position

    most, each = session.model.config.max_seq_len, bytes_a_position(session.model)
    for record in records:
        length = len(session.prompt_of(record).prompt)
        about = f"--facts: {path}: record {record.number}, {record.name!r}, takes {length} tokens with its instruction"
        if length >= most:
            raise ValueError(f"{about}, and the model has {most} positions")
        needed = each * min(most, length + session.max_new_tokens)
        if limit is not None and needed > limit:
            rule = f"{needed / 1e6:,.1f} MB of keys and values, and --cache-limit is {limit / 1e6:,.1f} MB"
            raise ValueError(f"{about}: {rule}")


def finish(
    args: argparse.Namespace,
    job: "Job",
    session: GenerationSession,
    records: Sequence[FactsRecord],
    team: "OneProcess",
    waiting: Sequence[int] | None,
) -> int:
    """Writes this process's share of the documents that are waited for, and waits for the others; returns the total.

    waiting  their numbers, which the first process knows
    """
    from ...progress import ProgressBar

    numbers = team.agree(waiting)
    if team.rank and not (job.out / "job.json").is_file():
        raise ValueError(f"{job.out}: must be a folder that all processes share: process {team.rank} sees no job in it")
    total = 0
    bar = ProgressBar(total=len(numbers), unit="document", disable=None if team.rank == 0 else True)
    with bar:
        with errors_with_counts(job):
            for document in documents(args, job, session, records, team.share(numbers)):
                job.write(document)
                total = team.done(1)
                bar.update(total - bar.n)
        for total in team.wait_for_all():
            bar.update(total - bar.n)
    return len(numbers)


def documents(
    args: argparse.Namespace,
    job: "Job",
    session: GenerationSession,
    records: Sequence[FactsRecord],
    numbers: Iterator[int],
) -> Iterator["Document"]:
    """The documents of some records as they end. The seed of one is --seed, and one more a record below the first."""
    from ...writing.job import Document

    first = session.sampling["seed"]
    assert isinstance(first, int)
    asked = ((records[number - 1], first + number - 1) for number in numbers)
    for (record, seed), written in session.write_each(asked, args.batch or BATCH, cache_bytes(args)):
        yield Document(record.number, job.names[record.number - 1], record, written.text, seed, written.end)


@contextlib.contextmanager
def errors_with_counts(job: "Job") -> Iterator[None]:
    """Within the block, what ends the work too early says what is finished and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted: {_finished(job)}") from None
    except OSError as error:
        why = error.strerror or str(error)
        raise OSError(f"{job.out}: {why.lower() if error.errno in FULL else why}: {_finished(job)}") from error


def _finished(job: "Job") -> str:
    return f"{len(job.finished())} of {len(job.names)} documents are finished and stay; --resume goes on"


def tell(args: argparse.Namespace, summary: dict[str, Any], written: int, seconds: float) -> None:
    """Says what was written: the summary as JSON, or a line, and the time."""
    from ...writing.index_page import totals

    if args.json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        print(f"{args.out / 'index.html'}: {count(summary['finished'], 'document')}. {totals(summary)}")
    if written:
        speed = f"{seconds:.1f} s, {written / seconds * 60:.1f} a minute"
        print(f"lowrank: {count(written, 'document')} in {speed}", file=sys.stderr)
