"""Errors of the library in the words of the command line: the library names parameters, the command line its flags."""

from collections.abc import Iterator, Mapping
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
