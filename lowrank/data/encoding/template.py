"""Prompt templates: named, versioned texts. An adapter is used with the template it was trained with.

A conversation becomes parts, each tokenized separately, which is what generation does too:

    begin-of-text, asked    answered, end-of-text    begin-of-text, asked    ...
    given                   learned                  given

An answer of weight 0 is given too. A text without a prompt is begin-of-text, given, and the text, answered.

The texts of a name and version never change; a test holds them. A better text is a new version, or another name.
One name more, CHAT, is the model's own chat template: its text comes with the tokenizer (`chat_template`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...model.tokenizer import Tokenizer

DEFAULT = "alpaca"
CHAT = "chat"

INSTRUCTION, ANSWER = "[INST]", "[/INST]"
SYSTEM, SYSTEM_END = "<<SYS>>", "<</SYS>>"


@dataclass(frozen=True)
class Turn:
    """One exchange. `output` is None where the model is to answer; one that is not learned is only read."""

    instruction: str
    input: str = ""
    output: str | None = None
    learned: bool = True


@dataclass(frozen=True)
class Conversation:
    """A training example: turns, and the system prompt before the first of them.

    is_text   true for a text that answers no prompt: the output of its one turn, which no template is put around
    rejected  an answer to the last prompt that is worse than its output; None where there is no preference
    """

    id: str
    turns: tuple[Turn, ...]
    system: str = ""
    is_text: bool = False
    rejected: str | None = None

    @property
    def alternatives(self) -> tuple["Conversation", ...]:
        """The chosen and the rejected conversation of a preference, the last answer of each learned and no other.

        Of a conversation that is no preference, itself.
        """
        if self.rejected is None:
            return (self,)
        earlier = tuple(replace(turn, learned=False) for turn in self.turns[:-1])
        last = replace(self.turns[-1], learned=True)
        return tuple(
            replace(self, turns=(*earlier, replace(last, output=answer)), rejected=None)
            for answer in (last.output, self.rejected)
        )


@dataclass(frozen=True)
class Part:
    """A text, tokenized separately: asked, behind a begin-of-text token, or answered, with an end-of-text one."""

    text: str
    answered: bool
    learned: bool


@dataclass(frozen=True)
class Template:
    """prompt = with_system + with_input or without_input, filled in; the output as it is follows.

    with_system  what stands before the prompt where there is a system prompt; "" has no place for one
    """

    name: str
    version: int
    with_input: str
    without_input: str
    with_system: str = ""

    def render(self, instruction: str, input: str, system: str = "") -> str:
        """The prompt: everything up to where the answer begins.

        Raises ValueError for a system prompt that the template has no place for.
        """
        if system and not self.with_system:
            raise ValueError(f"template {self.name} has no place for a system prompt, got {system!r}")
        before = self.with_system.format(system=system) if system else ""
        form = self.with_input if input else self.without_input
        return before + form.format(instruction=instruction, input=input)

    def completion(self, output: str) -> str:
        """The text that is learned."""
        return output

    def parts(self, conversation: Conversation) -> list[Part]:
        """The parts of a conversation in order, asked and answered; the system prompt belongs to its first turn.

        Raises ValueError for a text that the template refuses.
        """
        if conversation.is_text:
            (turn,) = conversation.turns
            return [Part("", answered=False, learned=False), Part(turn.output or "", answered=True, learned=True)]
        parts = []
        for number, turn in enumerate(conversation.turns):
            prompt = self.render(turn.instruction, turn.input, conversation.system if number == 0 else "")
            parts.append(Part(prompt, answered=False, learned=False))
            if turn.output is not None:
                parts.append(Part(self.completion(turn.output), answered=True, learned=turn.learned))
        return parts

    def to_json(self) -> dict[str, Any]:
        """The template's entry in an adapter's provenance; `recorded` is the inverse."""
        return {"name": self.name, "version": self.version}


class Llama2Chat(Template):
    """Meta's chat format: `[INST] user [/INST]` and ` answer ` with its trailing space    (llama/generation.py)

    Meta tokenizes a finished turn as one text. The cut before the answer changes no id: every piece of Llama's
    vocabulary holds its spaces in front, so none crosses from "]" into " answer".
    """

    def render(self, instruction: str, input: str, system: str = "") -> str:
        """The prompt, user text stripped, the system prompt folded into it.  Raises ValueError for a tag inside."""
        user = super().render(instruction, input)
        for text in (system, user):
            _refuse_tags(text)
        if system:
            user = f"{SYSTEM}\n{system}\n{SYSTEM_END}\n\n{user}"
        return f"{INSTRUCTION} {user.strip()} {ANSWER}"

    def completion(self, output: str) -> str:
        """The answer, stripped, and one space.  Raises ValueError for a tag inside."""
        _refuse_tags(output)
        return f"{output.strip()} "


def _refuse_tags(text: str) -> None:
    for tag in (INSTRUCTION, ANSWER, SYSTEM, SYSTEM_END):
        if tag in text:
            raise ValueError(f"template llama2-chat: special tags are not allowed in a text, got {tag!r}")


# "alpaca" leaves out Stanford's sentence of introduction: the embedded base knows it in this form. A system prompt
# stands in its place.
_ALL = (
    Template(
        name="alpaca",
        version=1,
        with_input="### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        without_input="### Instruction:\n{instruction}\n\n### Response:\n",
        with_system="{system}\n\n",
    ),
    Template(
        name="fingpt",
        version=1,
        with_input="Instruction: {instruction}\nInput: {input}\nAnswer: ",
        without_input="Instruction: {instruction}\nInput: \nAnswer: ",
    ),
    Llama2Chat(
        name="llama2-chat",
        version=1,
        with_input="{instruction}\n\n{input}",
        without_input="{instruction}",
    ),
    Template(
        name="plain",
        version=1,
        with_input="{instruction}\n\n{input}\n\n",
        without_input="{instruction}\n\n",
        with_system="{system}\n\n",
    ),
)
TEMPLATES: Mapping[str, Template] = MappingProxyType({template.name: template for template in _ALL})
NAMES = (*TEMPLATES, CHAT)


@dataclass(frozen=True)
class ModelChat:
    """The model's own chat template, as an adapter's provenance holds it: the whole text (jinja2)."""

    text: str

    @classmethod
    def of(cls, tokenizer: "Tokenizer") -> "ModelChat":
        """That of a tokenizer.  Raises ValueError if it has none."""
        if not tokenizer.chat_template:
            raise ValueError(f"template chat is the model's own chat template: {tokenizer.path.parent} has none")
        return cls(tokenizer.chat_template)

    def to_json(self) -> dict[str, Any]:
        """The template's entry in an adapter's provenance; `recorded` is the inverse."""
        return {"name": CHAT, "version": 1, "text": self.text}


def find(name: str) -> Template:
    """The template of a name.  Raises ValueError for one that is not in TEMPLATES."""
    if name not in TEMPLATES:
        raise ValueError(f"template must be one of {', '.join(NAMES)}, got {name!r}")
    return TEMPLATES[name]


def template_entry(name: str, tokenizer: "Tokenizer") -> dict[str, Any]:
    """The entry in an adapter's provenance of a template that is used with a tokenizer."""
    return (ModelChat.of(tokenizer) if name == CHAT else find(name)).to_json()


def check_learnable(conversation: Conversation, template: str) -> None:
    """Raises ValueError for an empty answer, if no answer is learned, and for a text that the template refuses.

    What the model's own refuses shows when it is used.
    """
    if conversation.rejected is not None:
        for alternative in conversation.alternatives:
            check_learnable(alternative, template)
        return
    answers = [turn.output for turn in conversation.turns if turn.output is not None]
    if not answers or not all(answer.strip() for answer in answers):
        raise ValueError("output must not be empty: there is nothing to learn")
    if template != CHAT:
        find(template).parts(conversation)
    if not conversation.is_text and not any(turn.learned for turn in conversation.turns if turn.output is not None):
        raise ValueError("weight must be 1 for at least one answer: there is nothing to learn")


def learnable_parts(conversation: Conversation, template: str) -> list[Part]:
    """The parts of a conversation, at least one of which is learned.  Raises ValueError as `check_learnable` does."""
    check_learnable(conversation, template)
    return find(template).parts(conversation)


def render(name: str, instruction: str, input: str) -> str:
    """The prompt of one task in the template of a name."""
    return find(name).render(instruction, input)


def recorded(provenance: Mapping[str, Any], where: str) -> Template | ModelChat | None:
    """The template that an adapter was trained with; None if its provenance names none. A bare name is version 1.

    Raises ValueError for an unknown name or version, and a chat template without its text.
    """
    entry = provenance.get("template")
    if entry is None:
        return None
    if isinstance(entry, str):
        name, version = entry, 1
    elif isinstance(entry, dict) and entry.keys() >= {"name", "version"}:
        name, version = entry["name"], entry["version"]
    else:
        raise ValueError(f"{where}: template: must be a name, or a name and a version, got {entry!r}")
    if name not in NAMES:
        raise ValueError(f"{where}: trained with the template {name!r}, known are {', '.join(NAMES)}")
    ours = 1 if name == CHAT else TEMPLATES[name].version
    if version != ours:
        raise ValueError(f"{where}: trained with version {version} of the template {name!r}, this is version {ours}")
    if name != CHAT:
        return TEMPLATES[name]
    text = entry.get("text") if isinstance(entry, dict) else None
    if not isinstance(text, str):
        raise ValueError(f"{where}: template: must have the text of the chat template, got {text!r}")
    return ModelChat(text)


def template_for(
    provenances: Mapping[str, Mapping[str, Any]], asked: str | None = None, *, tokenizer: "Tokenizer"
) -> str:
    """The one template to use adapters with: theirs, or if they record none, the one asked for, or the default.

    provenances  where an adapter came from -> its provenance
    tokenizer    of the base that they are used on
    Raises ValueError naming both if an adapter was trained with another than is asked for, or than another adapter, or
    with a chat template that is not the base's.
    """
    if asked is not None and asked not in NAMES:
        find(asked)
    chosen, chooser = asked, "" if asked is None else "asked for"
    for where, provenance in provenances.items():
        trained = recorded(provenance, where)
        if trained is None:
            continue
        name = CHAT if isinstance(trained, ModelChat) else trained.name
        if chosen is not None and name != chosen:
            raise ValueError(f"{where}: trained with the template {name!r}, {chooser} {chosen!r}")
        if isinstance(trained, ModelChat) and trained.text != tokenizer.chat_template:
            theirs = "another" if tokenizer.chat_template else "none"
            raise ValueError(
                f"{where}: trained with the template 'chat', the chat template of its base: "
                f"{tokenizer.path.parent} has {theirs}"
            )
        chosen, chooser = name, chooser or f"{where} with"
    if chosen == CHAT:
        ModelChat.of(tokenizer)
    return chosen or DEFAULT
