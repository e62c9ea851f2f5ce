"""Errors in the words of the command line."""

import pytest

from lowrank.cli.flags import flags_in_errors


def test_a_parameter_is_named_as_its_flag() -> None:
    with (
        pytest.raises(ValueError, match=r"^--batch must be at least 1, got 0$"),
        flags_in_errors({"batch must": "--batch must"}),
    ):
        raise ValueError("batch must be at least 1, got 0")


def test_other_errors_pass_as_they_are() -> None:
    error = ValueError("no such folder")
    with pytest.raises(ValueError) as caught, flags_in_errors({"batch must": "--batch must"}):
        raise error
    assert caught.value is error
    with pytest.raises(KeyError), flags_in_errors({"batch must": "--batch must"}):
        raise KeyError("batch must")
