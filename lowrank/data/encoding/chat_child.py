"""Renders a model's chat template, a line a rendering: a process of its own, started by `chat_process`.

The template is a program that came with a model. It runs in jinja2's ImmutableSandboxedEnvironment, with the settings
and functions that transformers gives it, within so many seconds of processor time a rendering and bytes of memory,
where the system has such limits (Windows has neither, macOS no limit of memory). Nothing of lowrank is imported here.
"""

import json
import sys
from datetime import datetime
from typing import Any, NoReturn

import jinja2
from jinja2.ext import Extension
from jinja2.nodes import Node
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

if sys.platform != "win32":
    import resource
    import signal


class GenerationTag(Extension):
    """{% generation %} ... {% endgeneration %} is what stands between: in transformers it marks what is learned."""

    tags = {"generation"}  # noqa: RUF012  # jinja2 declares it so

    def parse(self, parser: Parser) -> list[Node]:
        """The statements between the tags."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class SafeNamespace(jinja2.utils.Namespace):
    """jinja2's namespace without names that begin with "_", as transformers has it."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        """Arguments of dict; "self" may be one of their names."""
        self, values = args[0], dict(*args[1:], **kwargs)
        for name in values:
            _check_attribute(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)


class SafeDict:
    """`dict` of the template: makes one, and shows nothing of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """dict(...)"""
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """dict.fromkeys(...)"""
        return dict.fromkeys(*args)


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace cannot have an attribute {name!r}")


def _raise(message: str) -> NoReturn:
    raise jinja2.exceptions.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _now(form: str) -> str:
    return datetime.now().strftime(form)  # local time, as transformers has it


def environment() -> ImmutableSandboxedEnvironment:
    """jinja2 as transformers sets it up for chat templates."""
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[GenerationTag, "jinja2.ext.loopcontrols"]
    )
    made.filters["tojson"] = _tojson
    made.globals |= {
        "raise_exception": _raise,
        "strftime_now": _now,
        "dict": SafeDict(),
        "namespace": SafeNamespace,
    }
    return made


def limit_memory(size: int) -> None:
    """Holds the process to so many bytes of addresses, where the system can."""
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def limit_time(seconds: float) -> None:
    """Ends the process once it has computed for so many seconds; 0 for no limit."""
    if sys.platform != "win32":
        signal.setitimer(signal.ITIMER_PROF, seconds)


def answer(line: str, template: jinja2.Template | None) -> tuple[dict[str, str], jinja2.Template | None]:
    """The answer to a line, {"text": ...} or {"error": ...}, and the template, which the first line holds."""
    try:
        question = json.loads(line)
        if template is None:
            return {"text": ""}, environment().from_string(question)
        return {"text": template.render(**question)}, template
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}: {error.message}"}, template
    except jinja2.exceptions.TemplateError as error:
        return {"error": str(error)}, template
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}, template


def main() -> None:
    """Seconds and bytes are the arguments; each line of standard input has one as its answer, and the start has one."""
    seconds, size = float(sys.argv[1]), int(sys.argv[2])
    limit_memory(size)
    template: jinja2.Template | None = None
    print("{}", flush=True)
    for line in sys.stdin:
        limit_time(seconds)
        try:
            reply, template = answer(line, template)
            text = json.dumps(reply)
        except MemoryError:
            text = json.dumps({"error": f"needs more than {size >> 20} MiB of memory"})
        limit_time(0)
        print(text, flush=True)


if __name__ == "__main__":
    main()
