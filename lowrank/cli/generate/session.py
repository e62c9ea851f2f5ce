"""Where texts are written on the command line: a base that stays, its hats, and how the next text is to be."""

import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from ...data.documents.facts_record import FactsRecord
    from ...grounding.decoding import Grounding
    from ...grounding.vocabulary import Vocabulary
    from ...layers.prefix_cache import PrefixCache
    from ...model.completion import Completion
    from ...model.continuous_batch import Request
    from ...model.drafts import Lookup
    from ...model.generate import Prompt
    from ...model.llama import Llama, Prefixes
    from ...model.sampling import SamplingOptions
    from ...model.tokenizer import Tokenizer

    Document = tuple[FactsRecord, int]  # and the seed of its text

Use = str | Mapping[str, float] | None

NARROWEST = 28  # characters of a column, below which texts are put one under another


class Task(NamedTuple):
    """A prompt, the value of `answer` that `generate` takes it with, and how many of its tokens begin others', too."""

    prompt: "Prompt"
    answer: bool
    shared: int


@dataclass
class GenerationSession:
    """The base, and all that the next text depends on.

    base      what the base was called
    adapters  name -> where it came from and its provenance
    use       what the next text is written in: one hat, or in `compare` several, a row each
    subject   the record of the next document, if there is one
    logprobs  as in `complete`
    prefixes  keeps what prompts begin with; None where all of them are read whole
    can_repeat  true where a prompt may come again, for another text: all of it is kept
    written   the last texts with their tokens and ends
    """

    model: "Llama"
    tokenizer: "Tokenizer"
    base: str
    adapters: dict[str, tuple[Path, dict[str, Any]]]
    use: Use = None
    compare: list[Use] = field(default_factory=list)
    subject: "FactsRecord | None" = None
    template: str | None = None
    grounded: bool = False
    max_new_tokens: int = 400
    stop: Sequence[str] = ()
    sampling: "SamplingOptions" = field(default_factory=dict)  # type: ignore[assignment]
    logprobs: int | None = None
    prefixes: "PrefixCache | None" = None
    can_repeat: bool = False
    written: "list[Completion]" = field(default_factory=list)

    @cached_property
    def vocabulary(self) -> "Vocabulary":
        """The tokens by their characters."""
        from ...grounding.vocabulary import Vocabulary

        return Vocabulary(self.tokenizer)

    @cached_property
    def lookup(self) -> "Lookup":
        """The texts so far, from which the next ones are drafted."""
        from ...model.drafts import Lookup

        return Lookup()

    @cached_property
    def _beginnings(self) -> dict[tuple[str, str], list[int]]:
        """The tokens that prompts begin with, by template and instruction."""
        return {}

    @property
    def uses(self) -> list[Use]:
        """The adapters of the next texts: one text each."""
        return self.compare or [self.use]

    def prompt(self, text: str | None) -> Task:
        """A text as it is, or for None the task of writing the subject's document, in the template of the hats."""
        if text is not None:
            return Task(text, answer=False, shared=0)
        if self.subject is None:
            raise ValueError("there is nothing to write: give a text, or a record")
        return self.prompt_of(self.subject)

    def prompt_of(self, subject: "FactsRecord") -> Task:
        """The task of writing a record's document, as `prompt`; its prompt is tokens."""
        from ...data.documents.facts_record import known_kind
        from ...data.encoding.batching import count_shared, prompt_for, shared_beginning
        from ...data.encoding.template import template_for

        used = {name for use in self.uses for name in ([use] if isinstance(use, str) else use or ())}
        if unknown := sorted(used - self.adapters.keys()):
            raise ValueError(f"unknown adapter {unknown[0]!r}: there are {', '.join(self.adapters) or 'none'}")
        in_use = {str(self.adapters[name][0]): self.adapters[name][1] for name in self.adapters if name in used}
        template = template_for(in_use, self.template, tokenizer=self.tokenizer)
        instruction = known_kind(subject.kind).instruction()
        prompt, answer = prompt_for(template, self.tokenizer, instruction, subject.text)
        tokens = self.tokenizer.encode(prompt, bos=True) if isinstance(prompt, str) else prompt
        if (template, instruction) not in self._beginnings:
            self._beginnings[template, instruction] = shared_beginning(template, self.tokenizer, instruction)
        return Task(tokens, answer, count_shared(tokens, self._beginnings[template, instruction]))

    def reading(self, task: Task) -> "Prefixes | None":
        """The reading of a prompt that is read by itself: the same one in whatever way its text is written."""
        return None if self.prefixes is None else self.prefixes.of_task(task.shared, keeps_whole=self.can_repeat)

    def constraint(self) -> "Grounding | None":
        """The constraint of the next text; None if it is not grounded.  Raises ValueError if it has no facts."""
        if self.grounded and self.subject is None:
            raise ValueError("--grounded is of --facts: without a record there is nothing to ground a figure in")
        return None if self.subject is None else self.constraint_of(self.subject)

    def constraint_of(self, subject: "FactsRecord") -> "Grounding | None":
        """The constraint of a record's text, as `constraint`."""
        if not self.grounded:
            return None
        from ...grounding.decoding import Grounding
        from ...grounding.names import phrases_of

        return Grounding(subject.facts, self.vocabulary, phrases_of(subject.kind))

    def stream(self, text: str | None) -> Iterator[str]:
        """One text, as it comes, in `use`."""
        from ...adapters import using_adapter
        from ...model.generate import stream, unchanged

        task = self.prompt(text)
        with using_adapter(self.model, self.use), unchanged(self.model):
            completion = yield from stream(
                self.model,
                self.tokenizer,
                task.prompt,
                max_new_tokens=self.max_new_tokens,
                stop=self.stop,
                constraint=self.constraint(),
                answer=task.answer,
                drafts=self.lookup,
                prefixes=self.reading(task),
                **self.sampling,
            )
        self.written = [completion]

    def write(self, text: str | None) -> list[str]:
        """A text for each of `uses`, all of them in one batch, a hat a row."""
        from ...adapters import using_adapter
        from ...model.generate import complete

        task = self.prompt(text)
        with using_adapter(self.model, self.compare or self.use):
            self.written = complete(
                self.model,
                self.tokenizer,
                [task.prompt] * len(self.uses),
                max_new_tokens=self.max_new_tokens,
                stop=self.stop,
                constraints=[self.constraint() for _ in self.uses],
                answer=task.answer,
                drafts=self.lookup,
                prefixes=self.reading(task),
                logprobs=self.logprobs,
                **self.sampling,
            )
        return [completion.text for completion in self.written]

    def write_each(
        self, documents: "Iterable[Document]", rows: int, cache_bytes: int
    ) -> "Iterator[tuple[Document, Completion]]":
        """A text in `use` for each record and seed, as they end; up to `rows` at once, and each what it is alone.

        A document is asked for when there is a place for it. Where rows are joined, the place of one that has ended is
        another's at once; elsewhere `rows` of them are a batch that ends with its longest.
        cache_bytes  of keys and values of joined rows: see `ContinuousBatch`
        """
        from ...adapters import using_adapter
        from ...model.continuous_batch import MOST_ROWS, ContinuousBatch, Row
        from ...model.generate import unchanged

        left = iter(documents)
        with using_adapter(self.model, self.use), unchanged(self.model):
            context = copy_context()  # of all texts, during which nothing changes in the model
        if not self.joins_rows():
            while batch := list(islice(left, rows)):
                yield from zip(batch, context.run(self._write_batch, batch), strict=True)
            return
        rows = min(rows, MOST_ROWS)
        drafts = self.lookup if rows == 1 else True
        many = ContinuousBatch(
            self.model, self.tokenizer, rows=rows, cache_bytes=cache_bytes, drafts=drafts, parts_a_step=rows
        )
        documents_of: dict[Row, Document] = {}
        while True:
            for document in islice(left, rows - len(many)):
                documents_of[context.run(many.add, self._request(*document))] = document
            if not many:
                return
            for row in many.step():
                if row.completion is not None:
                    yield documents_of.pop(row), row.completion

    def joins_rows(self) -> bool:
        """True where texts in `use` come and go in one batch, which `ContinuousBatch` writes."""
        from ...adapters import using_adapter

        with using_adapter(self.model, self.use):
            return self.model.fused_blocks is not None and self.model.fused_blocks.joins_rows(self.model)

    def _request(self, subject: "FactsRecord", seed: int) -> "Request":
        """A record's document, as a batch takes it."""
        from ...model.continuous_batch import Request

        task = self.prompt_of(subject)
        return Request(
            prompt=task.prompt,
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            constraint=self.constraint_of(subject),
            answer=task.answer,
            sampling={**self.sampling, "seed": seed},
            prefixes=self.reading(task),
        )

    def _write_batch(self, documents: "Sequence[Document]") -> "list[Completion]":
        """A text for each record and seed, all of them in one batch, in the context of this call."""
        from ...model.generate import complete

        tasks = [self.prompt_of(subject) for subject, _ in documents]
        sampling: SamplingOptions = {**self.sampling, "seed": [seed for _, seed in documents]}
        return complete(
            self.model,
            self.tokenizer,
            [task.prompt for task in tasks],
            max_new_tokens=self.max_new_tokens,
            stop=self.stop,
            constraints=[self.constraint_of(subject) for subject, _ in documents],
            answer=all(task.answer for task in tasks),
            drafts=self.lookup,
            prefixes=self.reading(tasks[0]),  # of a batch of one; several are read together
            **sampling,
        )

    def cut_reasons(self) -> list[str]:
        """A line for each of the last texts that ended because the context was full."""
        reason = "stopped: the context is full"
        several = [shown(use) for use in self.uses] if len(self.written) > 1 else [""]
        names = [name for name, text in zip(several, self.written, strict=False) if text.end == "context"]
        positions = self.model.config.max_seq_len
        return [f"{name}: {reason} ({positions} positions)".removeprefix(": ") for name in names]


def shown(use: Use) -> str:
    """ "finance", "a=0.7+b=0.3", "none": `read_one` is the inverse"""
    if use is None or isinstance(use, str):
        return use or "none"
    return "+".join(f"{name}={weight:g}" for name, weight in use.items())


def read_one(text: str, separator: str = "+") -> Use:
    """A hat, a mix NAME=WEIGHT+NAME=WEIGHT, or "none".  Raises ValueError for a weight that is no number."""
    if "=" not in text:
        return None if text == "none" else text
    mix = {}
    for part in text.split(separator):
        name, _, weight = part.partition("=")
        try:
            mix[name] = float(weight)
        except ValueError:
            raise ValueError(f"--use: a mix is NAME=WEIGHT{separator}NAME=WEIGHT, got {part!r}") from None
    return mix


def side_by_side(titles: Sequence[str], texts: Sequence[str], width: int | None = None) -> str:
    """Texts in columns under their titles; one under another where the terminal is too narrow for that."""
    columns = width or shutil.get_terminal_size((120, 24)).columns
    column = (columns - 3 * (len(texts) - 1)) // len(texts)
    if column < NARROWEST:
        return "\n\n".join(f"--- {title}\n{text}" for title, text in zip(titles, texts, strict=True))
    wrapped = [
        [
            title[:column],
            "-" * column,
            *(row for line in text.split("\n") for row in textwrap.wrap(line, column) or [""]),
        ]
        for title, text in zip(titles, texts, strict=True)
    ]
    height = max(map(len, wrapped))
    rows = zip(*(rows + [""] * (height - len(rows)) for rows in wrapped), strict=True)
    return "\n".join(" | ".join(cell.ljust(column) for cell in row).rstrip() for row in rows)
