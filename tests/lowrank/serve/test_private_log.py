"""Lines of the terminal: what other libraries log is told by its place alone."""

import asyncio
import logging
from collections.abc import Callable

import pytest

from lowrank.serve.private_log import PrivateLog, place_of

SECRET = "the secret of Aldane Foods"


def fail() -> None:
    raise LookupError(SECRET)


def error_of(call: Callable[[], None]) -> Exception:
    try:
        call()
    except LookupError as error:
        return error
    raise AssertionError("it did not fail")


def test_an_error_is_told_by_its_kind_and_place() -> None:
    place = place_of(error_of(fail))
    assert place.startswith("LookupError in test_private_log.py:") and SECRET not in place
    assert place_of(ValueError(SECRET)) == "ValueError"


@pytest.mark.parametrize("name", PrivateLog.NAMES)
def test_what_other_libraries_log_has_no_message(name: str, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger(name)
    with PrivateLog():
        logger.error("Exception in ASGI application: %s", SECRET, exc_info=error_of(fail))
        logger.warning(SECRET)
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2 and told[0].startswith("a request failed: LookupError in test_private_log.py:")
    assert told[1] == f"the server: {name}" and SECRET not in caplog.text


def test_outside_of_it_logs_are_as_they_were(caplog: pytest.LogCaptureFixture) -> None:
    with PrivateLog():
        pass
    logging.getLogger("asyncio").error("as ever")
    assert caplog.messages == ["as ever"]


def test_an_exception_that_nobody_waits_for_is_told_by_its_place(caplog: pytest.LogCaptureFixture) -> None:
    async def forgotten() -> None:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": SECRET, "exception": error_of(fail)})

    with PrivateLog():
        asyncio.run(forgotten())
    assert "LookupError" in caplog.text and SECRET not in caplog.text
