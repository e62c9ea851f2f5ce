"""Who may come in: programs by a token, browsers by a code that is good once.

    API      Authorization: Bearer TOKEN; 256 bits, never in a URL
    browser  the terminal shows http://127.0.0.1:PORT/#CODE. What is behind # is not sent to any server, and is in no
             Referer; the page takes it off the address bar and posts it to /session. A code opens one session: one that
             is found later, in the browser's history or on a photograph of the terminal, opens nothing
    session  two halves, both of 256 bits: a cookie (HttpOnly, SameSite=Strict) and a key that the page keeps in its
             storage and sends in a header. Cookies are sent to every port of a host, so that another server on this
             machine may see the first half; storage belongs to scheme, host and port, and scripts of another page
             cannot read it. Neither half is worth anything without the other

Whatever is secret is compared by its SHA-256 in constant time: the answer's time tells nothing of how much was right.
"""

import hashlib
import hmac
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import NamedTuple

from .errors import Refusal

LETTERS = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"  # without those that are taken for others
CODE_LETTERS = 8  # 31^8 = 8.5e11 codes
ATTEMPTS, WITHIN = 5, 60.0  # wrong codes, seconds
SESSIONS = 16
SHORTEST_TOKEN = 16  # characters of a token of the user's own


class Session(NamedTuple):
    """The halves of a session."""

    cookie: str
    key: str


class Doorkeeper:
    """The token, the code that is good now, and the sessions.

    token     of the user's own; None draws one
    new_code  is called with each code as it begins to be good
    Raises ValueError for a token as `check_token` does.
    """

    def __init__(
        self,
        token: str | None = None,
        new_code: Callable[[str], None] = lambda code: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if token is not None:
            check_token(token)
        self.token = token or secrets.token_urlsafe(32)
        self._token = _hash(self.token)
        self._new_code, self._clock = new_code, clock
        self._sessions: OrderedDict[bytes, bytes] = OrderedDict()
        self._wrong: deque[float] = deque(maxlen=ATTEMPTS)
        self._draw_code()

    def _draw_code(self) -> None:
        drawn = "".join(secrets.choice(LETTERS) for _ in range(CODE_LETTERS))
        self.code = f"{drawn[:4]}-{drawn[4:]}"
        self._code = _hash(drawn)
        self._new_code(self.code)

    def is_token(self, authorization: str) -> bool:
        """True for "Bearer TOKEN"."""
        scheme, _, token = authorization.partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(_hash(token.strip()), self._token)

    def open_session(self, code: str) -> Session:
        """A session for the code that is good now, which is good no more.

        Raises Refusal for another code, and for any after ATTEMPTS wrong ones in a minute.
        """
        now = self._clock()
        if len(self._wrong) == ATTEMPTS and now - self._wrong[0] < WITHIN:
            wait = round(WITHIN - (now - self._wrong[0])) + 1
            raise Refusal(429, f"too many wrong codes: try again in {wait} s", code="wrong_code", retry_after=wait)
        given = "".join(letter for letter in code.upper() if letter in LETTERS)
        if not hmac.compare_digest(_hash(given), self._code):
            self._wrong.append(now)
            raise Refusal(401, "this code is not the one that the terminal shows now", code="wrong_code")
        session = Session(secrets.token_urlsafe(32), secrets.token_urlsafe(32))
        self._sessions[_hash(session.cookie)] = _hash(session.key)
        while len(self._sessions) > SESSIONS:
            self._sessions.popitem(last=False)
        self._draw_code()
        return session

    def is_session(self, cookie: str, key: str) -> bool:
        """True for both halves of one session. All sessions are compared, so that the time tells nothing."""
        halves = _hash(cookie), _hash(key)
        found = False
        for known in self._sessions.items():
            is_this = hmac.compare_digest(halves[0], known[0]) & hmac.compare_digest(halves[1], known[1])
            found |= is_this
        return found

    def close_session(self, cookie: str) -> None:
        """Ends a session; another one is not touched."""
        self._sessions.pop(_hash(cookie), None)


def check_token(token: str) -> None:
    """Raises ValueError for a token that is short, or of other characters than ASCII's."""
    if len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise ValueError(f"the token must be {SHORTEST_TOKEN} ASCII characters or more, got {len(token)}")


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
