"""A request that is refused: one line of words, and the shape in which OpenAI's clients expect it."""

from typing import Any

_TYPES = {401: "authentication_error", 403: "permission_error", 421: "permission_error", 429: "rate_limit_error"}
LONGEST = 300  # characters of a message


class Refusal(Exception):
    """An answer with a status of 400 and above.

    param        the name of the parameter at fault
    code         a word for programs: "model_not_found"
    retry_after  seconds after which it may be tried again
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        line = " ".join(message.split())
        self.message = line if len(line) <= LONGEST else f"{line[: LONGEST - 3]}..."
        super().__init__(self.message)
        self.status, self.param, self.code, self.retry_after = status, param, code, retry_after

    def to_json(self) -> dict[str, Any]:
        """{"error": {"message": ..., "type": ..., "param": ..., "code": ...}}"""
        kind = _TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Retry-After where there is something to wait for; the challenge of a request without its token."""
        headers = {} if self.retry_after is None else {"retry-after": str(self.retry_after)}
        return headers | ({"www-authenticate": "Bearer"} if self.status == 401 else {})


def short(value: object) -> str:
    """A value of a request as a message shows it: in quotes, one line, not too long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
