"""The server at work: its socket, its lines on the terminal, and its end."""

import socket
import sys
import time
from collections.abc import Callable, Sequence

import uvicorn
from starlette.types import ASGIApp

from ..model.continuous_batch import CACHE_BYTES
from .app import build
from .doorkeeper import Doorkeeper
from .engine import Engine
from .guard import Hosts
from .private_log import PrivateLog
from .shelf import Shelf

LOOPBACK = ("127.0.0.1", "::1")
CONNECTIONS = 100  # at a time; what comes beyond them is answered 503
GRACE = 3  # seconds that answers under way have at the end


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises ValueError for an address that is not this machine's, and a port that is in use.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except socket.gaierror as error:
        raise ValueError(f"host {host!r}: {error.strerror}") from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(address)
        bound.listen()
    except OSError as error:
        bound.close()
        raise ValueError(f"host {host}, port {port}: {error.strerror}") from None
    return bound


def uvicorn_server(app: ASGIApp) -> uvicorn.Server:
    """A server of HTTP/1.1 that logs nothing, believes no proxy's header, and does not say what it is."""
    config = uvicorn.Config(
        app,
        access_log=False,
        log_config=None,
        http="h11",
        ws="none",
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(config)


def serve(
    shelf: Shelf,
    bound: socket.socket,
    *,
    token: str | None = None,
    names: Sequence[str] = (),
    active: int = 8,
    waiting: int = 16,
    cache_bytes: int = CACHE_BYTES,
    most_tokens: int = 1024,
    show: Callable[[str], None] | None = None,
) -> None:
    """Serves until SIGINT or SIGTERM; then what is under way has GRACE seconds.

    bound  a socket of `bind`
    active, waiting, cache_bytes  as of `Engine`
    token  of the user's own, which is not shown; None draws one, and shows it
    names  further values of Host that are this server's
    show   takes a line for the terminal: standard error, if left out
    """
    show = show or (lambda line: print(line, file=sys.stderr, flush=True))
    host, number = bound.getsockname()[:2]
    is_local = host in LOOPBACK
    shown = f"[{host}]" if ":" in host else "127.0.0.1" if host == "0.0.0.0" else host
    address = f"http://{names[0] if names else f'{shown}:{number}'}/"
    say = show

    def code_drawn(code: str) -> None:
        say(f"workbench: {address}#{code}   (opens one browser; the next code follows)")

    doorkeeper = Doorkeeper(token, code_drawn)
    say(f"API:       {address}v1   models: {', '.join(shelf.choices)}")
    say("           Authorization: Bearer " + (doorkeeper.token if token is None else "(your token)"))
    say("end with Ctrl-C")
    engine = Engine(active=active, waiting=waiting, cache_bytes=cache_bytes)
    hosts = Hosts(number, names, any_number=not is_local)
    app = build(shelf, engine, doorkeeper, hosts, most_tokens=most_tokens, tell=lambda line: say(_stamped(line)))
    try:
        with PrivateLog():
            uvicorn_server(app).run(sockets=[bound])
    except KeyboardInterrupt:
        pass  # uvicorn has ended in order, and hands the signal on
    finally:
        engine.close()
    say("ended")


def _stamped(line: str) -> str:
    return f"{time.strftime('%H:%M:%S')}  {line}"
