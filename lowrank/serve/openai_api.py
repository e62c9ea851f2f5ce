"""OpenAI's API: /v1/models, /v1/chat/completions, /v1/completions.

`model` is the name of a hat, or of a base for the base alone; requests in different hats are written at once.
"""

import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from anyio.to_thread import run_sync
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ..data.documents.facts_record import FactsRecord
from ..data.encoding.template import Conversation, Turn
from ..model.completion import Completion
from ..writing.audit import Audit
from .engine import Engine, Finished, Piece, TextRequest
from .errors import Refusal
from .facts import facts_of_request, grounding
from .json_body import Parameters, read_json, read_object
from .logprobs import chat_logprobs, completion_logprobs
from .openai_parameters import (
    INERT,
    INERT_OF_COMPLETIONS,
    MOST_TEXTS,
    Options,
    read_messages,
    read_options,
    read_prompts,
)
from .prompts import Prompt, conversation_prompt, text_prompt, token_prompt, with_input
from .shelf import Choice, Shelf
from .waiting import EventStream, Texts, unless_gone

REASONS = {"end of text": "stop", "stop": "stop", "max_new_tokens": "length", "context": "length"}


@dataclass
class _Call:
    """A request that was understood: its texts to write, and what its answers have in common.

    is_chat  tells the shapes of the two calls apart
    record   the facts, if there are some
    """

    choice: Choice
    options: Options
    prompts: Sequence[Prompt]
    is_chat: bool
    record: FactsRecord | None = None
    id: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    def requests(self) -> list[TextRequest]:
        """A text for each prompt and each of `n`."""
        base, options = self.choice.base, self.options
        seed = options.sampling["seed"]
        assert isinstance(seed, int)
        record = self.record if options.grounded else None
        return [
            TextRequest(
                model=base.model,
                tokenizer=base.tokenizer,
                adapter=self.choice.adapter,
                prompt=prompt,
                answer=answer,
                max_new_tokens=options.max_new_tokens,
                stop=options.stop,
                sampling={**options.sampling, "seed": seed + number},
                constraint=None if record is None else grounding(record, base),
                logprobs=options.logprobs,
            )
            for prompt, answer in self.prompts
            for number in range(options.n)
        ]

    def shape(self, choices: list[dict[str, Any]], *, chunk: bool) -> dict[str, Any]:
        """An answer, or a part of one, with these choices."""
        kind = ("chat.completion.chunk" if chunk else "chat.completion") if self.is_chat else "text_completion"
        return {
            "id": f"{'chatcmpl' if self.is_chat else 'cmpl'}-{self.id}",
            "object": kind,
            "created": self.created,
            "model": self.choice.name,
            "system_fingerprint": f"fp_{str(self.choice.base.model.source.get('fingerprint', ''))[:12]}",
            "choices": choices,
        }

    def choice_of(
        self, number: int, text: str | None, reason: str | None, *, chunk: bool, completion: Completion | None = None
    ) -> dict[str, Any]:
        """One of the choices; of a completion with the probabilities of its tokens, if they were asked for."""
        logprobs = None
        if completion is not None and completion.logprobs is not None:
            shape = chat_logprobs if self.is_chat else completion_logprobs
            logprobs = shape(completion, self.choice.base.tokenizer)
        shown: dict[str, Any] = {"index": number, "finish_reason": reason, "logprobs": logprobs}
        if not self.is_chat:
            return {**shown, "text": text or ""}
        content = {} if text is None else {"content": text}
        return {**shown, "delta": content} if chunk else {**shown, "message": {"role": "assistant", **content}}

    def usage(self, completions: Sequence[Completion]) -> dict[str, int]:
        """The tokens of the prompts, each once, and of the texts."""
        asked, written = sum(len(prompt) for prompt, _ in self.prompts), sum(len(one.tokens) for one in completions)
        return {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written}

    def audits(self, completions: Sequence[Completion]) -> dict[str, Any]:
        """The extension of an answer that was written from facts: an audit of each text; {} without facts."""
        if self.record is None:
            return {}
        return {"lowrank": {"audits": [Audit.of(self.record, one.text).to_json() for one in completions]}}


class OpenAI:
    """The handlers of /v1.

    most_tokens  the most that a text may have
    """

    def __init__(self, shelf: Shelf, engine: Engine, most_tokens: int, tell: Callable[[str], None]) -> None:
        self.shelf, self.engine, self.most_tokens, self.tell = shelf, engine, most_tokens, tell
        self.created = int(time.time())

    def routes(self) -> list[Route]:
        """The routes of the API."""
        return [
            Route("/v1/models", self.models, methods=["GET"]),
            Route("/v1/models/{name}", self.model, methods=["GET"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/completions", self.completions, methods=["POST"]),
        ]

    async def models(self, request: Request) -> Response:
        """GET /v1/models"""
        return JSONResponse({"object": "list", "data": [self._model(one) for one in self.shelf.choices.values()]})

    async def model(self, request: Request) -> Response:
        """GET /v1/models/NAME"""
        return JSONResponse(self._model(self.shelf.choice(request.path_params["name"])))

    def _model(self, choice: Choice) -> dict[str, Any]:
        told = {"base": choice.base.name, "hat": choice.adapter, "template": choice.template, "kinds": choice.kinds}
        return {"id": choice.name, "object": "model", "created": self.created, "owned_by": "lowrank", "lowrank": told}

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions"""
        parameters = Parameters(await read_json(request))
        options = read_options(parameters, self.most_tokens, is_chat=True)
        messages = parameters.take("messages")
        parameters.inert(INERT)
        parameters.finish()
        conversation = read_messages(messages)
        choice = self.shelf.choice(options.model)
        body = await request.body()

        def understood() -> _Call:
            record = self._record(options, body)
            asked = self._conversation(conversation, options, record)
            return _Call(choice, options, [conversation_prompt(choice, asked)], True, record)

        return await self._answer(request, await run_sync(understood))

    async def completions(self, request: Request) -> Response:
        """POST /v1/completions: with facts they ground the text, and the prompt stays as it is"""
        parameters = Parameters(await read_json(request))
        options = read_options(parameters, self.most_tokens, is_chat=False)
        prompts = read_prompts(parameters.take("prompt"))
        parameters.inert(INERT_OF_COMPLETIONS)
        parameters.finish()
        choice = self.shelf.choice(options.model)
        if len(prompts) * options.n > MOST_TEXTS:
            raise Refusal(400, f"a request must be for at most {MOST_TEXTS} texts, got {len(prompts) * options.n}")
        body = await request.body()

        def understood() -> _Call:
            tokens = [
                text_prompt(choice, prompt) if isinstance(prompt, str) else token_prompt(choice, prompt)
                for prompt in prompts
            ]
            return _Call(choice, options, tokens, False, self._record(options, body))

        return await self._answer(request, await run_sync(understood))

    def _record(self, options: Options, body: bytes) -> FactsRecord | None:
        """The facts, of an object with its numbers as the request writes them: 7.250 stays 7.250."""
        if options.facts is None:
            return None
        facts = read_object(body, numbers_as_text=True)["facts"]
        return facts_of_request(facts, options.record, self.shelf.kind(options.kind))

    def _conversation(self, asked: Conversation, options: Options, record: FactsRecord | None) -> Conversation:
        """The conversation, with the facts behind its last question; the kind's own without any message."""
        if not asked.turns and (record is None or options.kind is None):
            raise Refusal(400, "messages must not be empty, but with `facts` and `kind`", param="messages")
        if not asked.turns:
            asked = Conversation("", (Turn(self.shelf.kind(options.kind).instruction()),), asked.system)
        return asked if record is None else with_input(asked, record.text)

    async def _answer(self, request: Request, call: _Call) -> Response:
        texts = Texts(self.engine, await run_sync(call.requests))
        if call.options.stream:
            return EventStream(self._stream(call, texts), texts.cancel)
        whole = await unless_gone(request.receive, texts.cancel, _completions(texts))
        self._log(call, whole)
        choices = [
            call.choice_of(number, one.text, REASONS[one.end], chunk=False, completion=one)
            for number, one in enumerate(whole)
        ]
        answer = call.shape(choices, chunk=False) | {"usage": call.usage(whole)}
        return JSONResponse(answer | await run_sync(call.audits, whole))

    async def _stream(self, call: _Call, texts: Texts) -> AsyncIterator[bytes]:
        """The events of a streamed answer; one that fails ends with an event that has its error."""
        finished: dict[int, Completion] = {}
        try:
            for number in range(len(call.prompts) * call.options.n):
                if call.is_chat:
                    first = call.choice_of(number, "", None, chunk=True)
                    first["delta"] = {"role": "assistant", "content": ""}
                    yield _event(call.shape([first], chunk=True))
            async for told in texts.events():
                if told is None:
                    yield b": waiting\n\n"
                    continue
                number, event = told
                if isinstance(event, Piece):
                    yield _event(call.shape([call.choice_of(number, event.text, None, chunk=True)], chunk=True))
                elif isinstance(event, Finished):
                    finished[number] = event.completion
                    last = call.choice_of(
                        number, None, REASONS[event.completion.end], chunk=True, completion=event.completion
                    )
                    audits = await run_sync(call.audits, [event.completion])
                    yield _event(call.shape([last], chunk=True) | audits)
            whole = [finished[number] for number in sorted(finished)]
            self._log(call, whole)
            if call.options.with_usage:
                yield _event(call.shape([], chunk=True) | {"usage": call.usage(whole)})
        except Refusal as refusal:
            yield _event(refusal.to_json())
            return
        yield b"data: [DONE]\n\n"

    def _log(self, call: _Call, whole: Sequence[Completion]) -> None:
        usage = call.usage(whole)
        what = "chat" if call.is_chat else "completion"
        seconds = time.time() - call.created
        tokens = f"{usage['prompt_tokens']} + {usage['completion_tokens']} tokens"
        self.tell(f"{what} {call.choice.name}: {tokens}, {seconds:.0f} s")


async def _completions(texts: Texts) -> list[Completion]:
    """The texts, whole, in the order in which they were asked for."""
    finished: dict[int, Completion] = {}
    async for told in texts.events():
        if told is not None and isinstance(told[1], Finished):
            finished[told[0]] = told[1].completion
    return [finished[number] for number in sorted(finished)]


def _event(value: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n".encode()
