"""lowrank generate --watch: one sitting on one base, which stays loaded."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from ...data.documents.facts_record import FactsRecord
from ..kinds import chosen_kind
from .session import GenerationSession, Use, read_one, shown, side_by_side

if TYPE_CHECKING:
    from ...model.sampling import SamplingOptions

HELP = """\
TEXT                       go on from a text
/write                     the document of the record
/use NAME                  wear a hat, a mix a=0.7,b=0.3, or none
/compare a,b,none          several side by side, in one batch; a mix is a=0.7+b=0.3
/hats                      what there is, and what is worn
/load NAME=DIR             one more hat
/drop NAME                 one less
/facts FILE KIND [RULE...] a record to write of
/grounded on               only figures of the record (off: any)
/set NAME VALUE            temperature, top_k, top_p, min_p, repetition_penalty, seed, max_new_tokens
/help, /quit"""


def watch(session: GenerationSession, lines: TextIO, text: str | None = None) -> int:
    """Does what each line asks, and tells a mistake in one; until /quit or the end of the lines.

    text  written first, or the document if there is a record
    """
    print("a text to go on from, or /help")
    if text is not None or session.subject is not None:
        _write(session, text)
    while True:
        if lines.isatty():
            print(f"[{', '.join(map(shown, session.uses))}] > ", end="", flush=True)
        line = lines.readline()
        if not line or line.strip() == "/quit":
            return 0
        try:
            _obey(session, line.strip())
        except (FloatingPointError, ValueError, OSError) as error:
            print(f"mistake: {' '.join(str(error).split())}")


def _obey(session: GenerationSession, line: str) -> None:
    if not line.startswith("/"):
        if line:
            _write(session, line)
        return
    command, *words = line.split()
    if command not in COMMANDS:
        raise ValueError(f"{command}: no such command (/help)")
    COMMANDS[command](session, words)


def _write(session: GenerationSession, text: str | None) -> None:
    if session.compare:
        print(side_by_side([shown(use) for use in session.uses], session.write(text)))
    else:
        for piece in session.stream(text):
            sys.stdout.write(piece)
            sys.stdout.flush()
        print()
    for reason in session.cut_reasons():
        print(f"note: {reason}")


def _use(session: GenerationSession, words: list[str]) -> None:
    use = read_one(_one(words, "/use NAME"), separator=",")
    _check(session, [use])
    session.use, session.compare = use, []


def _compare(session: GenerationSession, words: list[str]) -> None:
    from . import read_compare

    uses = read_compare(",".join(words))
    _check(session, uses)
    session.compare = uses


def _check(session: GenerationSession, uses: list[Use]) -> None:
    """Raises ValueError for a name that is not held."""
    from ...adapters import using_adapter

    with using_adapter(session.model, uses):
        pass


def _adapters(session: GenerationSession, words: list[str]) -> None:
    for name, (path, _) in session.adapters.items():
        print(f"{name}  {path}")
    print(f"worn: {', '.join(map(shown, session.uses))}")


def _load(session: GenerationSession, words: list[str]) -> None:
    from ...adapters.files import load_adapter

    name, equals, folder = _one(words, "/load NAME=DIR").partition("=")
    if not equals:
        raise ValueError(f"/load NAME=DIR, got {name!r}")
    session.adapters[name] = Path(folder), load_adapter(session.model, name, folder)


def _drop(session: GenerationSession, words: list[str]) -> None:
    from ...adapters import drop_adapter

    name = _one(words, "/drop NAME")
    drop_adapter(session.model, name)
    del session.adapters[name]
    session.use, session.compare = None, []


def _facts(session: GenerationSession, words: list[str]) -> None:
    if len(words) < 2:
        raise ValueError("/facts FILE KIND [RULE...]")
    kind = chosen_kind(words[1], [path for path, _ in session.adapters.values()])
    session.subject = FactsRecord.read(Path(words[0]), kind, words[2:])
    print("\n".join((session.subject.summary, *session.subject.notes)))


def _grounded(session: GenerationSession, words: list[str]) -> None:
    word = _one(words, "/grounded on, or off")
    if word not in ("on", "off"):
        raise ValueError(f"/grounded must be on or off, got {word!r}")
    session.grounded = word == "on"


def _set(session: GenerationSession, words: list[str]) -> None:
    from ...model.sampling import Sampling

    if len(words) != 2:
        raise ValueError("/set NAME VALUE")
    name, value = words
    integers = ("top_k", "seed", "max_new_tokens")
    try:
        number = int(value) if name in integers else float(value)
    except ValueError:
        raise ValueError(f"{name} must be a {'whole ' * (name in integers)}number, got {value!r}") from None
    if name == "max_new_tokens":
        if number < 1:
            raise ValueError(f"max_new_tokens must be at least 1, got {value}")
        session.max_new_tokens = int(number)
        return
    if name not in Sampling.__dataclass_fields__:
        raise ValueError(f"/set: {name!r} is none of {', '.join((*Sampling.__dataclass_fields__, 'max_new_tokens'))}")
    changed = cast("SamplingOptions", {**session.sampling, name: number})
    Sampling(**changed)
    session.sampling = changed


def _one(words: list[str], usage: str) -> str:
    if len(words) != 1:
        raise ValueError(usage)
    return words[0]


COMMANDS: dict[str, Callable[[GenerationSession, list[str]], None]] = {
    "/write": lambda session, words: _write(session, None),
    "/use": _use,
    "/compare": _compare,
    "/hats": _adapters,
    "/load": _load,
    "/drop": _drop,
    "/facts": _facts,
    "/grounded": _grounded,
    "/set": _set,
    "/help": lambda session, words: print(HELP),
}
