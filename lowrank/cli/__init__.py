"""The command line: `lowrank VERB`. A file a verb; each has `add` (its arguments) and `run`.

Only `run` imports torch, so that `lowrank --help` answers at once; and only the verb that is asked for is imported.

Exit status: 0 done, 1 a check failed or a run could not finish, 2 the caller's mistake, told in one line.
"""

import io
import logging
import os
import sys
import warnings
from functools import cache
from importlib import import_module
from typing import NoReturn

from .. import __version__
from ..workflows.systems import refused_reason
from .arguments import AnyOrderParser
from .flags import in_flags

VERBS = (
    *("quickstart", "reproduce", "fetch", "quantize", "data", "train", "sweep", "eval", "generate", "serve", "inspect"),
    *("parity", "merge", "adapter", "export", "conformance", "bench", "doctor"),
)


class OneLineParser(AnyOrderParser):
    """Tells a mistake in one line, with the place to look."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def build_parser(verb: str | None = None) -> OneLineParser:
    """The parser of every verb, or of the one that is named: the others take a tenth of a second to import."""
    parser = OneLineParser("lowrank", description="LoRA, 4-bit NF4 and Llama 2, written out by hand.")
    parser.add_argument("--version", action="version", version=f"lowrank {__version__}")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    for name in [verb] if verb in VERBS else VERBS:
        import_module(f".{name}", __package__).add(verbs)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Runs one verb; returns the exit status."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if isinstance(sys.stdout, io.TextIOWrapper):  # a character that a terminal has not must end no run
        sys.stdout.reconfigure(errors="backslashreplace")  # as Python has it for stderr
    args = build_parser(arguments[0] if arguments else None).parse_args(arguments)
    warnings.showwarning = _show_note
    notes = logging.getLogger("lowrank")
    if not any(isinstance(handler, _Notes) for handler in notes.handlers):
        notes.addHandler(_Notes())
    _show_note_once.cache_clear()
    if reason := refused_reason(args.verb):
        print(f"lowrank: {reason}", file=sys.stderr)
        return 1
    try:
        status: int = args.run(args)
        return status
    except KeyboardInterrupt as stop:
        message = str(stop) or "interrupted: what was finished is whole, and nothing is half-written"
        print(f"lowrank: {message}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # whoever read our output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (FloatingPointError, OSError, ValueError) as error:
        if args.debug:
            raise
        print(f"lowrank: {in_flags(' '.join(str(error).split()), arguments)}", file=sys.stderr)
        mistake = isinstance(error, ValueError | FileNotFoundError | IsADirectoryError | NotADirectoryError)
        return 2 if mistake else 1


class _Notes(logging.Handler):
    """Prints what the library notes of its inputs, as lines of stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        _show_note(record.getMessage())


def _show_note(message: Warning | str, *_: object, **__: object) -> None:
    _show_note_once(str(message))


@cache
def _show_note_once(message: str) -> None:
    print(f"lowrank: note: {message}", file=sys.stderr)
