"""All that may be asked for, by name: bases, hats on them, kinds of document, as they were named at the start.

A request names what is here, and never a path. The name of a choice is the hat's, or the base's for the base alone; of
a hat that fits several bases "HAT@BASE".
"""

import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..adapters.files import load_adapter
from ..checkpoints.embedded import base_folder
from ..checkpoints.load import load, load_tokenizer
from ..data.documents.facts_record import known_kind
from ..data.documents.kind import Kind
from ..data.documents.kinds import KINDS, add_kind, find_kind
from ..data.encoding.template import CHAT, template_for
from ..grounding.vocabulary import Vocabulary
from ..model.llama import Llama
from ..model.tokenizer import Tokenizer
from .errors import Refusal, short

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# The kind of a document that none is named for: any facts, and whatever headings the model writes.
ANY_KIND = Kind("document", "Document", "a document", fields={}, sections={})


@dataclass
class Base:
    """A base that is loaded, and what is made of its tokenizer once."""

    name: str
    model: Llama
    tokenizer: Tokenizer
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _vocabulary: Vocabulary | None = None

    @property
    def vocabulary(self) -> Vocabulary:
        """The tokens by their characters, made when they are first needed."""
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(self.tokenizer)
            return self._vocabulary


@dataclass(frozen=True)
class Choice:
    """A base alone, or one in a hat.

    name      by which a request asks for it
    adapter   the hat's name in the model, None for the base alone
    template  what is put before the model
    kinds     the kinds that the hat stores
    """

    name: str
    base: Base
    adapter: str | None
    template: str
    kinds: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shelf:
    """The choices by name, the bases in the order in which they were named, and the kinds."""

    choices: Mapping[str, Choice]
    bases: tuple[Base, ...]
    kinds: tuple[str, ...]

    @classmethod
    def load(
        cls,
        bases: Sequence[tuple[str, str]],
        hats: Sequence[tuple[str, Path]] = (),
        kinds: Sequence[str] = (),
        *,
        template: str | None = None,
        weights: str | None = None,
        force: bool = False,
        **loading: Any,
    ) -> "Shelf":
        """Loads every base, and every hat on each base that it fits.

        bases    (name, folder)
        hats     (name, folder)
        kinds    names of kinds of the user's own, which are known
        loading  dtype and device, as `lowrank.checkpoints.load.load` takes them
        Raises ValueError for names that are used twice or are none, and a hat that fits no base, with the reason.
        """
        check_names([name for name, _ in bases], "base")
        check_names([name for name, _ in hats], "hat")
        if both := {name for name, _ in bases} & {name for name, _ in hats}:
            raise ValueError(f"a hat must have another name than a base, got {min(both)!r} for both")
        loaded = []
        for name, folder in bases:
            path = base_folder(folder)
            loaded.append(Base(name, load(path, weights, **loading), load_tokenizer(path)))
        fitting: list[tuple[Base, str, dict[str, Any], Path]] = []
        for hat, path in hats:
            fitting += [(base, hat, record, path) for base, record in _fitting(loaded, hat, path, force=force)]
        choices = {base.name: Choice(base.name, base, None, _template(base, {}, template)) for base in loaded}
        for base, hat, record, path in fitting:
            name = hat if sum(other == hat for _, other, _, _ in fitting) == 1 else f"{hat}@{base.name}"
            chosen = _template(base, {str(path): record}, template)
            choices[name] = Choice(name, base, hat, chosen, tuple(record.get("kinds", {})))
        if find_kind(ANY_KIND.name) is None:
            add_kind(ANY_KIND)
        return cls(choices, tuple(loaded), tuple(dict.fromkeys((*kinds, *KINDS, ANY_KIND.name))))

    def choice(self, name: object) -> Choice:
        """The choice of a name.  Raises Refusal for any other."""
        if not isinstance(name, str) or name not in self.choices:
            raise Refusal(
                404,
                f"model must be one of {', '.join(self.choices)}, got {short(name)}",
                param="model",
                code="model_not_found",
            )
        return self.choices[name]

    def kind(self, name: object) -> Kind:
        """The kind of a name; None names the kind of any document.  Raises Refusal for any other."""
        if name is None:
            return known_kind(ANY_KIND.name)
        if not isinstance(name, str) or name not in self.kinds:
            raise Refusal(400, f"kind must be one of {', '.join(self.kinds)}, got {short(name)}", param="kind")
        return known_kind(name)


def check_names(names: Sequence[str], what: str) -> None:
    """Raises ValueError for a name that is used twice, or that a request could not say."""
    for name in names:
        if NAME.fullmatch(name) is None:
            raise ValueError(f"the name of a {what} must be letters, digits, '.', '_' and '-', got {name!r}")
        if names.count(name) > 1:
            raise ValueError(f"two of the {what}s have the name {name!r}: name each as NAME=DIR")


def _fitting(bases: Sequence[Base], hat: str, folder: Path, *, force: bool) -> list[tuple[Base, dict[str, Any]]]:
    """The bases that a hat fits, with its record.  Raises the last refusal if there is none."""
    fitting, refused = [], ValueError(f"{folder}: there is no base")
    for base in bases:
        try:
            fitting.append((base, load_adapter(base.model, hat, folder, force=force)))
        except ValueError as error:
            refused = error
    if not fitting:
        raise refused
    return fitting


def _template(base: Base, records: Mapping[str, Mapping[str, Any]], asked: str | None) -> str:
    """The template of a hat; of a base alone the one asked for, its own chat template, or the default."""
    told = any(record.get("template") for record in records.values())
    own = CHAT if base.tokenizer.chat_template and not told else None
    return template_for(records, asked or own, tokenizer=base.tokenizer)
