"""The calls of the page: the choices, files of facts, documents as they are written, and files to take away."""

import json
import random
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, unquote

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..data.documents.facts_record import FactsRecord
from ..data.documents.kind import STYLES, Kind
from ..data.documents.splits import SPLITS
from ..data.encoding.template import Conversation, Turn
from ..data.facts.fact import render_input
from ..model.completion import Completion
from ..writing.audit import Audit
from ..writing.audit_page import render_audit
from ..writing.docx_file import docx_bytes
from ..writing.markdown import html_page
from .doorkeeper import Doorkeeper
from .engine import Engine, Finished, Piece, TextRequest
from .errors import Refusal
from .facts import cells_json, grounding, plain_name, read_record
from .guard import cookie_name, session_cookie
from .json_body import Parameters, read_json
from .kept_files import KeptFile, KeptFiles
from .prompts import conversation_prompt
from .shelf import Choice, Shelf
from .waiting import EventStream, Texts

MOST_SIDES = 2  # hats side by side
LONGEST_TEXT = 400_000  # characters of a document that is taken away
EXAMPLES = 1000


@dataclass(frozen=True)
class _Task:
    """A document to write, on each side in another hat."""

    choices: tuple[Choice, ...]
    record: FactsRecord
    requests: tuple[TextRequest, ...]


class Workbench:
    """The handlers of /session and /api."""

    def __init__(
        self, shelf: Shelf, engine: Engine, doorkeeper: Doorkeeper, most_tokens: int, tell: Callable[[str], None]
    ) -> None:
        self.shelf, self.engine, self.doorkeeper = shelf, engine, doorkeeper
        self.most_tokens, self.tell = most_tokens, tell
        self.files = KeptFiles()

    def routes(self) -> list[Route]:
        """The routes of the workbench."""
        return [
            Route("/session", self.enter, methods=["POST"]),
            Route("/session", self.leave, methods=["DELETE"]),
            Route("/api/state", self.state, methods=["GET"]),
            Route("/api/example", self.example, methods=["POST"]),
            Route("/api/facts", self.facts, methods=["POST"]),
            Route("/api/record", self.record, methods=["POST"]),
            Route("/api/write", self.write, methods=["POST"]),
            Route("/api/export", self.export, methods=["POST"]),
        ]

    async def enter(self, request: Request) -> Response:
        """POST /session {"code"} -> {"key"} and a cookie: the halves of a session"""
        parameters = Parameters(await read_json(request))
        code = parameters.text("code", "", longest=100)
        parameters.finish()
        assert code is not None
        session = self.doorkeeper.open_session(code)
        answer = JSONResponse({"key": session.key})
        answer.set_cookie(cookie_name(request.scope), session.cookie, path="/", httponly=True, samesite="strict")
        return answer

    async def leave(self, request: Request) -> Response:
        """DELETE /session: ends it, and forgets its files"""
        owner = _owner(request)
        self.files.drop(owner)
        self.doorkeeper.close_session(owner)
        answer = Response(status_code=204)
        answer.delete_cookie(cookie_name(request.scope), path="/", httponly=True, samesite="strict")
        return answer

    async def state(self, request: Request) -> Response:
        """GET /api/state: bases with their hats, kinds"""
        bases = [
            {
                "name": base.name,
                "context": base.model.config.max_seq_len,
                "choices": [
                    {"model": one.name, "hat": one.adapter, "template": one.template, "kinds": one.kinds}
                    for one in self.shelf.choices.values()
                    if one.base is base
                ],
            }
            for base in self.shelf.bases
        ]
        kinds = [_kind_json(self.shelf.kind(name)) for name in self.shelf.kinds]
        return JSONResponse({"bases": bases, "kinds": kinds, "styles": STYLES, "most_tokens": self.most_tokens})

    async def example(self, request: Request) -> Response:
        """POST /api/example {"kind"} -> {"name", "text"}: facts of a company that is not there"""
        parameters = Parameters(await read_json(request))
        kind = self.shelf.kind(parameters.take("kind"))
        parameters.finish()
        if not _can_be_drawn(kind):
            raise Refusal(400, f"there is no example of {kind.noun}: drop facts of your own", param="kind")
        facts = kind.draw(random.Random(secrets.randbelow(EXAMPLES)), SPLITS["validation"])
        given = {key: fact for key, fact in facts.items() if fact.source is None}
        return JSONResponse({"name": "example.txt", "text": render_input(given) + "\n"})

    async def facts(self, request: Request) -> Response:
        """POST /api/facts, a file; its name and the kind in headers -> its records, and the facts of the first"""
        name = plain_name(unquote(request.headers.get("x-lowrank-name", "")))
        kind = self.shelf.kind(unquote(request.headers.get("x-lowrank-kind", "")) or None)
        kept = KeptFile(_owner(request), name, await request.body())
        if not kept.content.strip():
            raise Refusal(400, f"{name}: is empty", param="facts")
        told = await run_sync(_reading_json, kept, kind, None)
        return JSONResponse({"file": self.files.add(kept), **told})

    async def record(self, request: Request) -> Response:
        """POST /api/record {"file", "kind", "record"}: the facts of another record, or as another kind reads them"""
        parameters = Parameters(await read_json(request))
        kept = self.files.find(_owner(request), parameters.take("file"))
        kind, record = self.shelf.kind(parameters.take("kind")), parameters.text("record", longest=1000)
        parameters.finish()
        return JSONResponse(await run_sync(_reading_json, kept, kind, record))

    async def write(self, request: Request) -> Response:
        """POST /api/write -> events: begin, piece, audit, end, error; each of one side"""
        parameters = Parameters(await read_json(request))
        names = parameters.texts("models", most=MOST_SIDES, longest=200)
        if not names:
            raise Refusal(400, f"models must name 1 to {MOST_SIDES} hats or bases", param="models")
        choices = tuple(map(self.shelf.choice, names))
        kept = self.files.find(_owner(request), parameters.take("file"))
        kind, name = self.shelf.kind(parameters.take("kind")), parameters.text("record", longest=1000)
        style = parameters.text("style", STYLES[0])
        if style not in STYLES:
            raise parameters.refusal("style", f"one of {', '.join(STYLES)}", style)
        is_grounded = parameters.flag("grounded", True)
        most_tokens = parameters.whole("max_new_tokens", self.most_tokens, 1, self.most_tokens)
        temperature = parameters.number("temperature", 0.0, 0.0, 2.0)
        seed = parameters.whole("seed", 0, 0, 2**31)
        parameters.finish()

        def understood() -> _Task:
            record = read_record(kept.reading(kind), name, kind)
            asked = Conversation("", (Turn(kind.instruction(style), record.text),))
            requests = []
            for choice in choices:
                prompt, answer = conversation_prompt(choice, asked)
                requests.append(
                    TextRequest(
                        model=choice.base.model,
                        tokenizer=choice.base.tokenizer,
                        adapter=choice.adapter,
                        prompt=prompt,
                        answer=answer,
                        max_new_tokens=most_tokens,
                        sampling={"temperature": temperature, "seed": seed},
                        constraint=grounding(record, choice.base) if is_grounded else None,
                    )
                )
            return _Task(choices, record, tuple(requests))

        task = await run_sync(understood)
        texts = Texts(self.engine, task.requests)
        return EventStream(self._written(task, texts), texts.cancel)

    async def _written(self, task: _Task, texts: Texts) -> AsyncIterator[bytes]:
        """The events of texts that are written; figures are audited as far as whole sentences go."""
        begun = time.monotonic()
        written = [""] * len(task.choices)
        audited = [0] * len(task.choices)
        for number, choice in enumerate(task.choices):
            yield _event("begin", number, model=choice.name)
        try:
            async for told in texts.events():
                if told is None:
                    yield b": waiting\n\n"
                    continue
                number, event = told
                if isinstance(event, Piece):
                    written[number] += event.text
                    yield _event("piece", number, text=event.text)
                    whole = _whole_sentences(written[number])
                    if whole > audited[number]:
                        audited[number] = whole
                        audit = await run_sync(_audit_json, task.record, written[number][:whole])
                        yield _event("audit", number, audit=audit)
                elif isinstance(event, Finished):
                    audit = await run_sync(_audit_json, task.record, event.completion.text)
                    seconds = time.monotonic() - begun
                    yield _event("end", number, audit=audit, **_end_json(event.completion, seconds))
                    tokens = f"{len(task.requests[number].prompt)} + {len(event.completion.tokens)} tokens"
                    self.tell(f"document {task.choices[number].name}: {tokens}, {seconds:.0f} s")
        except Refusal as refusal:
            yield _event("error", 0, message=refusal.message)

    async def export(self, request: Request) -> Response:
        """POST /api/export {"format", "text", "file", "kind", "record", "model"} -> a file to save"""
        parameters = Parameters(await read_json(request))
        format = parameters.take("format")
        if format not in _FORMATS:
            raise parameters.refusal("format", f"one of {', '.join(_FORMATS)}", format)
        text = parameters.text("text", "", longest=LONGEST_TEXT)
        kept = self.files.find(_owner(request), parameters.take("file"))
        kind, name = self.shelf.kind(parameters.take("kind")), parameters.text("record", longest=1000)
        choice = self.shelf.choice(parameters.take("model"))
        parameters.finish()
        assert text is not None
        if not text.strip():
            raise Refusal(400, "nothing was written yet", param="text")
        media_type, ending, make = _FORMATS[format]

        def made() -> tuple[str, bytes]:
            record = read_record(kept.reading(kind), name, kind)
            try:
                return record.name, make(record, text, choice.name)
            except ValueError as error:
                raise Refusal(400, str(error), param="format") from None

        title, content = await run_sync(made)
        name_of_file = f"{plain_name(title).removesuffix('.txt')}-{choice.name}{ending}".replace(" ", "-")
        return Response(
            content,
            media_type=media_type,
            headers={"content-disposition": f"attachment; filename*=UTF-8''{quote(name_of_file, safe='')}"},
        )


_Maker = Callable[[FactsRecord, str, str], bytes]
_FORMATS: dict[str, tuple[str, str, _Maker]] = {
    "md": ("text/markdown; charset=utf-8", ".md", lambda record, text, model: text.encode("utf-8")),
    "html": ("text/html; charset=utf-8", ".html", lambda record, text, model: html_page(record.name, text).encode()),
    "docx": (
        "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
        ".docx",
        lambda record, text, model: docx_bytes(text, record.name),
    ),
    "audit": (
        "text/html; charset=utf-8",
        "-figures.html",
        lambda record, text, model: render_audit(Audit.of(record, text), {"hat": model}).encode(),
    ),
}


def _owner(request: Request) -> str:
    cookies = request.headers.getlist("cookie")
    return session_cookie({"cookie": cookies}, request.scope)


def _kind_json(kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.name,
        "title": kind.title,
        "noun": kind.noun,
        "sections": kind.required_sections,
        "fields": [field.label for field in kind.fields.values()],
        "has_example": _can_be_drawn(kind),
    }


def _can_be_drawn(kind: Kind) -> bool:
    return bool(kind.fields) and all(field.source is not None for field in kind.fields.values())


def _reading_json(kept: KeptFile, kind: Kind, name: str | None) -> dict[str, Any]:
    """A file with its records, and the facts of one of them: of the first, if none is named."""
    file = kept.reading(kind)
    record = read_record(file, name or "1", kind)
    return {
        "name": file.path.name,
        "kind": kind.name,
        "records": [one.name or str(number) for number, one in enumerate(file.records, start=1)],
        "record": str(record.number),
        "title": record.name,
        "summary": record.summary,
        "notes": record.notes,
        "facts": cells_json(record),
    }


def _audit_json(record: FactsRecord, text: str) -> dict[str, Any]:
    """The part of an audit that the page shows; places are in UTF-16, as JavaScript counts."""
    audit = Audit.of(record, text)
    places = _Places(text)
    whole = audit.to_json()
    figures = [
        {**figure, "start": places.of(figure["start"]), "end": places.of(figure["end"])} for figure in whole["figures"]
    ]
    return {
        "figures": figures,
        "counts": whole["counts"],
        "sentence": audit.sentence,
        "faults": audit.faults,
        "stated": [fact["key"] for fact in whole["facts"] if fact["stated"]],
        "missing_sections": whole["sections_missing"],
    }


class _Places:
    """Places in a text by code points -> by UTF-16's units."""

    def __init__(self, text: str) -> None:
        self.wide = [place for place, letter in enumerate(text) if ord(letter) > 0xFFFF]

    def of(self, place: int) -> int:
        """The place, and one more for each wide letter before it."""
        return place + sum(wide < place for wide in self.wide)


def _whole_sentences(text: str) -> int:
    """The length of the text up to its last line break or end of a sentence: what follows may change a figure."""
    line, sentence = text.rfind("\n") + 1, text.rfind(". ") + 1
    return max(line, sentence)


def _end_json(completion: Completion, seconds: float) -> dict[str, Any]:
    return {
        "text": completion.text,
        "reason": completion.end,
        "tokens": len(completion.tokens),
        "seconds": round(seconds, 1),
    }


def _event(type: str, number: int, **more: object) -> bytes:
    return f"data: {json.dumps({'type': type, 'side': number, **more}, ensure_ascii=False)}\n\n".encode()
