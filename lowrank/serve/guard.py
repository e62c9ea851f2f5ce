"""The door that every request passes before anything looks at it: Host, Origin, credentials, the size of its body.

    Host    one of the addresses that were given at the start: a name of somebody else's that was pointed at this
            machine (DNS rebinding) is refused
    Origin  where a browser names one, this server's own: pages of other sites, and of other ports, are refused
    body    read here, at most a limit of bytes and seconds, whatever Content-Length says or does not say

and what every answer gets: no caching, no sniffing, no referrer, no frame, and a content security policy by which a
page loads this server's own scripts and styles and nothing else.
"""

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from http.cookies import CookieError, SimpleCookie

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .doorkeeper import Doorkeeper
from .errors import Refusal

MAX_BODY = 1_000_000  # bytes
MAX_FILE = 8_000_000  # bytes of a file of facts
BODY_SECONDS = 30.0
KEY_HEADER = "x-lowrank-key"
SAFE_METHODS = ("GET", "HEAD")

HEADERS: Mapping[str, str] = {
    "cache-control": "no-store",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; "
        "trusted-types 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=(), payment=(), usb=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Hosts:
    """The values of Host that are this server's.

    names       of the user's own, as a browser's address has them: "box.example:8765"
    any_number  True lets every IP address pass: a page of another site has a name, not this machine's address
    """

    def __init__(self, port: int, names: Sequence[str] = (), *, any_number: bool = False) -> None:
        own = ("127.0.0.1", "localhost", "[::1]")
        self.names = {f"{name}:{port}" for name in own} | {name.lower() for name in names}
        if port == 80:
            self.names |= set(own)
        self.any_number = any_number

    def has(self, host: str) -> bool:
        """True for a Host that is this server's."""
        if host.lower() in self.names:
            return True
        if not self.any_number:
            return False
        name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """The outermost part of the application."""

    def __init__(
        self, app: ASGIApp, hosts: Hosts, doorkeeper: Doorkeeper, *, body_seconds: float = BODY_SECONDS
    ) -> None:
        self.app, self.hosts, self.doorkeeper, self.body_seconds = app, hosts, doorkeeper, body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands a request on that may come in, and refuses any other."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no web sockets here

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                set_already = {name for name, _ in message["headers"]}
                more = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message["headers"], *(one for one in more if one[0] not in set_already)]
            await send(message)

        try:
            headers = _headers(scope)
            self._check_address(scope, headers)
            self._check_credentials(scope, headers)
            body = await self._body(scope, headers, receive)
        except Refusal as refusal:
            closing = {} if scope["method"] in SAFE_METHODS else {"connection": "close"}  # the body is not read
            answer = JSONResponse(refusal.to_json(), refusal.status, refusal.headers | closing)
            await answer(scope, receive, send_safely)
            return
        is_given = False

        async def receive_again() -> Message:
            nonlocal is_given
            if not is_given:
                is_given = True
                return {"type": "http.request", "body": body, "more_body": False}
            return await receive()

        await self.app(scope, receive_again, send_safely)

    def _check_address(self, scope: Scope, headers: Mapping[str, list[str]]) -> None:
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self.hosts.has(hosts[0]):
            raise Refusal(421, "Host is not this server's: open the address that the terminal shows", code="wrong_host")
        for origin in headers.get("origin", []):
            if origin.lower() not in (f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"):
                raise Refusal(403, "Origin is another site's", code="wrong_origin")
        if _is_public(scope):
            return
        for site in headers.get("sec-fetch-site", []):
            if site != "same-origin":
                raise Refusal(403, f"Sec-Fetch-Site must be same-origin, got {site[:20]!r}", code="wrong_origin")

    def _check_credentials(self, scope: Scope, headers: Mapping[str, list[str]]) -> None:
        path = scope["path"]
        if _is_public(scope):
            return
        if path.startswith("/v1/"):
            if not self.doorkeeper.is_token(" ".join(headers.get("authorization", []))):
                raise Refusal(401, "a request needs `Authorization: Bearer TOKEN`", code="invalid_api_key")
            return
        if scope["method"] not in SAFE_METHODS and "origin" not in headers:
            raise Refusal(403, "Origin is missing", code="wrong_origin")  # a browser has named one
        if path == "/session" and scope["method"] == "POST":
            return
        cookie, key = session_cookie(headers, scope), " ".join(headers.get(KEY_HEADER, []))
        if not self.doorkeeper.is_session(cookie, key):
            raise Refusal(401, "the workbench is locked: enter the code that the terminal shows", code="locked")

    async def _body(self, scope: Scope, headers: Mapping[str, list[str]], receive: Receive) -> bytes:
        """The whole body.  Raises Refusal for one that is too large, or does not come."""
        most = MAX_FILE if scope["path"] == "/api/facts" else MAX_BODY
        if scope["method"] in SAFE_METHODS or _is_public(scope):
            most = 0
        told = headers.get("content-length", ["0"])[0]
        if not told.isdecimal() or int(told) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise Refusal(400, "the body ended before its end")
                    part = message.get("body", b"")
                    size += len(part)
                    if size > most:
                        raise _too_large(most)
                    parts.append(part)
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise Refusal(408, f"the body must come within {self.body_seconds:g} s") from None


def _headers(scope: Scope) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    return headers


def _is_public(scope: Scope) -> bool:
    """True for the page and its parts, which are the same for everybody and say nothing of the user's."""
    path: str = scope["path"]
    return not path.startswith(("/v1/", "/api/")) and path not in ("/v1", "/api", "/session")


def cookie_name(scope: Scope) -> str:
    """A name of its own for each port: cookies are kept by host alone."""
    server = scope.get("server")
    return f"lowrank-{server[1] if server else 0}"


def session_cookie(headers: Mapping[str, list[str]], scope: Scope) -> str:
    """The cookie's half of a session, "" without one."""
    cookies = SimpleCookie()
    try:
        for line in headers.get("cookie", []):
            cookies.load(line)
    except CookieError:
        return ""
    found = cookies.get(cookie_name(scope))
    return "" if found is None else found.value


def _too_large(most: int) -> Refusal:
    return Refusal(413, f"the body must have at most {most:,} bytes", code="body_too_large")
