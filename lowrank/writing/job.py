"""A folder of documents, a record each, that can be interrupted and gone on with.

OUT/job.json            the job: facts, kind, base, hats and settings, all that a text depends on
OUT/NAME.md .html .docx a document in the formats that are asked for
OUT/NAME.audit.html     its audit as a page
OUT/NAME.audit.json     its audit, written last: a document that has it is finished
OUT/summary.json        every document with its counts
OUT/index.html          the same as a page
OUT/.lock               while a process writes into it
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic_io import LITTER, UNFINISHED, write_json, write_text
from ..data.documents.facts_record import FactsRecord
from ..folder_lock import lock_file
from .audit import Audit
from .audit_page import render_audit
from .docx_file import write_docx
from .index_page import render_index
from .markdown import html_page

JOB, SUMMARY, INDEX, LOCK = "job.json", "summary.json", "index.html", ".lock"
FORMATS = ("md", "html", "docx")
AUDIT, PAGE = ".audit.json", ".audit.html"


@dataclass(frozen=True)
class Document:
    """A text that was written for a record.

    number  of the record, from 1
    name    of its files, without a suffix
    end     how the text ended: see `Completion`
    """

    number: int
    name: str
    subject: FactsRecord
    text: str
    seed: int
    end: str


class Job:
    """The folder of a job.

    about    all that the texts depend on: two jobs are one if it is equal
    formats  of FORMATS
    names    of the files of each record, in the records' order
    """

    def __init__(self, out: Path, about: Mapping[str, Any], formats: Sequence[str], names: Sequence[str]) -> None:
        self.out, self.formats, self.names = out, tuple(formats), tuple(names)
        self.about: dict[str, Any] = json.loads(json.dumps(about))

    def check(self, resume: bool) -> None:
        """Raises ValueError, one line, for a folder that is not this job's to write into; it changes nothing.

        resume  True to go on with what is there; an empty or new folder is then begun
        """
        if self.out.exists() and not self.out.is_dir():
            raise ValueError(f"{self.out}: is a file, and a folder of documents is to be written there")
        names = sorted(path.name for path in self.out.iterdir()) if self.out.is_dir() else []
        names = [name for name in names if name != LOCK and not _is_litter(name)]
        if not names:
            return
        if JOB not in names:
            raise ValueError(f"{self.out}: holds {names[0]}, and no job: name a new or empty folder")
        if (reason := self.other_job_reason()) is not None:
            raise ValueError(f"{self.out}: holds another job: {reason}: name another folder")
        if not resume:
            done = f"{len(self.finished())} of {len(self.names)} documents are finished"
            raise ValueError(f"{self.out}: holds this job, {done}: resume it, or name another folder")

    def other_job_reason(self) -> str | None:
        """The reason why the job in the folder is another one, the first thing that differs; None if it is this one."""
        path = self.out / JOB
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ValueError(f"{path}: must be the JSON of a job") from None
        if not isinstance(theirs, dict):
            raise ValueError(f"{path}: must be the JSON of a job")
        for key in self.about:
            if theirs.get(key) != self.about[key]:
                return f"its {key.replace('_', ' ')} {_is(theirs.get(key))}, not {_shown(self.about[key])}"
        return None

    @contextlib.contextmanager
    def opened(self, resume: bool) -> Iterator[list[int]]:
        """The folder, for this process and those that share its work; yields the numbers of the records left to write.

        Raises ValueError as `check`, and for a folder that another process writes into. A folder that was made and
        is left empty is removed again.
        """
        self.check(resume)
        is_new = not self.out.exists()
        self.out.mkdir(parents=True, exist_ok=True)
        lock = self.out / LOCK
        rule = "writes into it: wait for it, or name another folder"
        file = lock_file(lock, lambda holder: f"{self.out}: {holder} {rule}")
        try:
            self.check(resume)  # it may have changed before the lock was had
            if not (self.out / JOB).exists():
                write_json(self.out / JOB, self.about)
            done = self.finished()
            yield [number for number in range(1, len(self.names) + 1) if number not in done]
        finally:
            with contextlib.suppress(OSError):
                lock.unlink(missing_ok=True)
            os.close(file)
            if is_new:
                with contextlib.suppress(OSError):  # it holds something
                    self.out.rmdir()

    def files(self, name: str) -> list[Path]:
        """The files of a document: its formats, the page of its audit, and the audit, in the order of writing."""
        return [self.out / f"{name}{suffix}" for suffix in (*(f".{format}" for format in self.formats), PAGE, AUDIT)]

    def finished(self) -> set[int]:
        """The numbers of the records whose documents are finished."""
        return {
            number
            for number, name in enumerate(self.names, start=1)
            if all(path.is_file() for path in self.files(name))
        }

    def write(self, document: Document) -> Audit:
        """Writes the files of a document; of one that cannot be finished, as on a full disk, none stays."""
        audit = Audit.of(document.subject, document.text)
        title = document.subject.name
        files = self.files(document.name)
        try:
            for path in files[: len(self.formats)]:
                if path.suffix == ".md":
                    write_text(path, document.text.rstrip("\n") + "\n")
                elif path.suffix == ".html":
                    write_text(path, html_page(title, document.text))
                else:
                    write_docx(path, document.text, title)
            about = {"seed": document.seed, "end": document.end, "dtype": self.about.get("dtype")}
            shown = {"hat": str(self.about.get("use", "none")), "seed": str(document.seed), "ended by": document.end}
            write_text(files[-2], render_audit(audit, shown))
            named = [path.name for path in files[:-1]]
            write_json(files[-1], {"name": document.name, "files": named, **about, **audit.to_json()})
        except BaseException:
            for path in files:
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
            raise
        return audit

    def summarize(self, notes: Sequence[str]) -> dict[str, Any]:
        """Writes the summary of all documents and their page, from the audits; returns it."""
        documents = []
        for number, name in enumerate(self.names, start=1):
            path = self.files(name)[-1]
            if not path.is_file():
                continue
            audit = json.loads(path.read_text(encoding="utf-8"))
            row = {"number": number, "name": audit["record"]["name"], "files": audit["files"], "audit": path.name}
            documents.append({**row, **{key: audit[key] for key in ("seed", "end", "counts", "sentence")}})
        counts: Counter[str] = Counter()
        for row in documents:
            counts.update(row["counts"])
        summary = {
            "job": self.about,
            "records": len(self.names),
            "finished": len(documents),
            "counts": dict(counts),
            "notes": list(notes),
            "documents": documents,
        }
        write_json(self.out / SUMMARY, summary)
        write_text(self.out / INDEX, render_index(summary))
        return summary


def _is_litter(name: str) -> bool:
    from fnmatch import fnmatchcase

    return name.endswith(UNFINISHED) or any(fnmatchcase(name, pattern) for pattern in LITTER)


def _is(value: Any) -> str:
    return f"is {_shown(value)}" if value is not None else "is not told"


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, str) else value
    return text if len(text) <= 60 else f"{text[:57]}..."
