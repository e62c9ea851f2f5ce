"""Errors of the library in the words of the command line: the library names parameters, the command line its flags."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager


@contextmanager
def flags_in_errors(flags: Mapping[str, str]) -> Iterator[None]:
    """Within the block, a ValueError has each phrase of `flags` replaced: {"batch must": "--batch must"}."""
    try:
        yield
    except ValueError as error:
        message = str(error)
        for phrase, flag in flags.items():
            message = message.replace(phrase, flag, 1)
        if message == str(error):
            raise
        raise ValueError(message) from error


def in_flags(message: str, arguments: Sequence[str]) -> str:
    """An error of the library, which names its own arguments, with the flags that were given in their place

    "weights must be ..." -> "--weights must be ...", "... (force=True to insist)" -> "... (--force to insist)"
    """
    flag = "--" + message.partition(" ")[0].replace("_", "-")
    is_given = any(argument.partition("=")[0] == flag for argument in arguments)
    message = f"{flag} {message.partition(' ')[2]}" if is_given else message
    return message.replace("force=True", "--force")
