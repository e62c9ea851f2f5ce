"""The model's own chat template as one of ours: which tokens are asked, and which are learned.

    asked  = template(messages up to the user's, add_generation_prompt)        what the model goes on from
    whole  = template(all messages)                                            begins with asked, for each answer
    learned: of whole, from the end of asked to the first end-of-text token behind it

The tokens are those of transformers' apply_chat_template, but that a special token that a user's text spells out, which
is that token there, is text here. A text is rendered a second time with a mark between its characters, a code
that stands in no text; if that gives the same but for the marks, the special tokens without a mark in them are the
template's. A template may look into a text ("</think>" in it, say) and do something else when it is marked: then the
marks stand in the special tokens that the text spells out only.
"""

import re
from collections.abc import Callable, Sequence

from ...model.tokenizer import Tokenizer
from .chat_process import process_of
from .template import Conversation, ModelChat

Piece = str | int  # of a rendering: a text, or a special token's id
Message = dict[str, str]
Place = tuple[int, int]  # a piece of a rendering, and a character of it

_MARKS = range(0xFDD0, 0x110000)  # the first of them are no characters, and stand in no text of anybody's


class ChatTemplate:
    """A tokenizer's own chat template.

    Raises ValueError, one line, for a tokenizer without one; and where it is used, for a template that fails, reaches a
    limit (`chat_process`), does not go on from what it asks, or ends an answer by nothing that ends a text.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.source = ModelChat.of(tokenizer).text
        self.named = named_tokens(tokenizer)

    def asked(self, conversation: Conversation) -> tuple[list[int], bool]:
        """The tokens that a model answers to, and True if the answer is tokenized as a text of its own.

        conversation  its last turn has no output
        """
        pieces = self._pieces(messages_of(conversation), asks=True)
        last = pieces[-1] if pieces else 0
        return self.tokenizer.encode_parts(pieces), isinstance(last, int) or last.endswith(" ")

    def learnable(self, conversation: Conversation) -> tuple[list[int], list[bool]]:
        """The tokens of a conversation, and for each if it is learned."""
        messages = messages_of(conversation)
        whole = self._pieces(messages, asks=False)
        answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
        begins = [_begin(whole, self._pieces(messages[:number], asks=True)) for number in answers]
        ends = [
            self._end(whole, begin, after)
            for begin, (after, _) in zip(begins, [*begins[1:], (len(whole), 0)], strict=True)
        ]
        wanted = [turn.learned for turn in conversation.turns if turn.output is not None]
        spans = [(*begin, end) for begin, end, is_wanted in zip(begins, ends, wanted, strict=True) if is_wanted]
        cuts = dict(begins)
        tokens: list[int] = []
        learned: list[bool] = []
        for number, piece in enumerate(whole):
            ids, given = ([piece], 0) if isinstance(piece, int) else self._cut(piece, cuts.get(number, 0))
            is_learned = any(first <= number <= last for first, _, last in spans)
            tokens += ids
            learned += [is_learned and place >= given for place in range(len(ids))]
        return tokens, learned

    def _cut(self, text: str, place: int) -> tuple[list[int], int]:
        """The tokens of a text, and how many of them stand before a place in it.

        Where a token crosses it, both sides are tokenized apart: what is asked has the tokens that generation has.
        """
        whole, before = self.tokenizer.encode(text), self.tokenizer.encode(text[:place]) if place else []
        if whole[: len(before)] == before:
            return whole, len(before)
        return before + self.tokenizer.encode(text[place:]), len(before)

    def _end(self, whole: Sequence[Piece], begin: Place, after: int) -> int:
        """The first end-of-text token behind a place, and before the piece in which the next answer begins."""
        for number in range(begin[0], after):
            if whole[number] in self.tokenizer.eos_ids:
                return number
        ends = " or ".join(repr(self.tokenizer.piece(token)) for token in self.tokenizer.eos_ids) or "nothing"
        raise ValueError(
            "template chat: an answer must end with a token that ends a text, or it would never end; "
            f"this template writes none behind it, and the model's files name {ends} (eos_token_id)"
        )

    def _pieces(self, messages: Sequence[Message], *, asks: bool) -> list[Piece]:
        """The rendering, in which only those special tokens are tokens that the template itself writes."""
        plain = self._render(messages, asks)
        if messages[0]["role"] == "system" and messages[0]["content"].strip() not in plain:
            raise ValueError(f"template chat has no place for a system prompt, got {messages[0]['content']!r}")
        special = self.tokenizer.special_tokens
        letters = {ord(letter) for text in (self.source, plain, *_contents(messages), *special) for letter in text}
        mark = next(chr(code) for code in _MARKS if code not in letters)
        for marked_text in (_between_letters(mark), _inside_special(mark, list(special))):
            marked = self._render([{**one, "content": marked_text(one["content"])} for one in messages], asks)
            if marked.replace(mark, "") == plain:
                return _without(mark, self.tokenizer.split_special(marked))
        raise ValueError("template chat: what it does with a special token that a text spells out cannot be told apart")

    def _render(self, messages: Sequence[Message], asks: bool) -> str:
        variables = {**self.named, "messages": list(messages), "tools": None, "documents": None}
        return process_of(self.source).render({**variables, "add_generation_prompt": asks})


def messages_of(conversation: Conversation) -> list[Message]:
    """A conversation as chat templates have it; an input stands behind the instruction, an empty line between."""
    messages = [{"role": "system", "content": conversation.system}] if conversation.system else []
    for turn in conversation.turns:
        asked = f"{turn.instruction}\n\n{turn.input}" if turn.input else turn.instruction
        messages.append({"role": "user", "content": asked})
        if turn.output is not None:
            messages.append({"role": "assistant", "content": turn.output})
    return messages


def named_tokens(tokenizer: Tokenizer) -> dict[str, str]:
    """bos_token, eos_token, ... -> the text of that token; begin and end also where no file names them."""
    texts = {token: text for text, token in tokenizer.special_tokens.items()}
    own = {"bos_token": tokenizer.bos_id, "eos_token": next(iter(tokenizer.eos_ids), None)}
    return {name: texts[token] for name, token in own.items() if token in texts} | dict(tokenizer.named)


def _begin(whole: Sequence[Piece], asked: Sequence[Piece]) -> Place:
    """Where in the whole the answer to what is asked begins.  Raises ValueError if the whole begins otherwise."""
    count = len(asked)
    if list(whole[:count]) == list(asked):
        return count, 0
    *before, last = asked
    if list(whole[: count - 1]) == before and count <= len(whole):
        met = whole[count - 1]
        if isinstance(last, str) and isinstance(met, str) and met.startswith(last):
            return count - 1, len(last)
    raise ValueError(
        "template chat: with its answer a conversation begins in another way than without it, "
        "so that what the model is to write cannot be told"
    )


def _contents(messages: Sequence[Message]) -> list[str]:
    return [message["content"] for message in messages]


def _between_letters(mark: str) -> Callable[[str], str]:
    """Puts a mark around every letter; not around the white space at both ends, which templates take away."""

    def marked(text: str) -> str:
        core = text.strip()
        before, _, after = text.partition(core) if core else (text, "", "")
        return f"{before}{mark}{mark.join(core)}{mark}{after}" if core else text

    return marked


def _inside_special(mark: str, special: Sequence[str]) -> Callable[[str], str]:
    """Puts a mark into every special token in a text, and at an end that a special token could begin or end with."""
    pattern = re.compile("|".join(f"(?={re.escape(text)})" for text in special if text) or "(?!)")

    def marked(text: str) -> str:
        core = text.strip()
        if not core:
            return text
        before, _, after = text.partition(core)
        inner, last = [], 0
        for match in pattern.finditer(core):
            inner.append(core[last : match.start() + 1])
            last = match.start() + 1
        left = any(core.startswith(one[place:]) for one in special for place in range(1, len(one)))
        right = any(core.endswith(one[:place]) for one in special for place in range(1, len(one)))
        within = any(core in one for one in special)
        middle = mark.join([*inner, core[last:]])
        return f"{before}{mark if left or within else ''}{middle}{mark if right else ''}{after}"

    return marked


def _without(mark: str, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces without marks."""
    clean = (piece if isinstance(piece, int) else piece.replace(mark, "") for piece in pieces)
    return [piece for piece in clean if piece != ""]
