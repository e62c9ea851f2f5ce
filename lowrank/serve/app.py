"""The application: the guard around the routes of the page, the workbench and OpenAI's API."""

from collections.abc import Callable
from importlib.resources import files

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from .doorkeeper import Doorkeeper
from .engine import Engine
from .errors import Refusal
from .guard import BODY_SECONDS, Guard, Hosts
from .openai_api import OpenAI
from .shelf import Shelf
from .workbench import Workbench

SCRIPTS = ("app", "card", "letter", "page", "record", "server", "side")
PAGES = {
    "/": ("index.html", "text/html"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in SCRIPTS},
    "/style.css": ("style.css", "text/css"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def build(
    shelf: Shelf,
    engine: Engine,
    doorkeeper: Doorkeeper,
    hosts: Hosts,
    *,
    most_tokens: int = 1024,
    tell: Callable[[str], None] = lambda line: None,
    body_seconds: float = BODY_SECONDS,
) -> ASGIApp:
    """The ASGI application of a server.

    most_tokens  the most that a text may have
    tell         is called with a line for each answer, in which there is no fact, prompt or text
    """
    openai = OpenAI(shelf, engine, most_tokens, tell)
    workbench = Workbench(shelf, engine, doorkeeper, most_tokens, tell)
    routes = [*openai.routes(), *workbench.routes(), *(_page(path, *page) for path, page in PAGES.items())]
    inner = Starlette(
        routes=routes,
        exception_handlers={Refusal: _refused, HTTPException: _not_found, Exception: _failed},
    )
    inner.router.redirect_slashes = False
    return Guard(inner, hosts, doorkeeper, body_seconds=body_seconds)


def _page(path: str, name: str, media_type: str) -> Route:
    content = files("lowrank.serve").joinpath("static", name).read_bytes()

    async def page(request: Request) -> Response:
        return Response(content, media_type=f"{media_type}; charset=utf-8")

    return Route(path, page, methods=["GET"])


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, Refusal)
    return JSONResponse(error.to_json(), error.status, error.headers)


async def _not_found(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    refusal = Refusal(error.status_code, error.detail, code="not_found" if error.status_code == 404 else None)
    return JSONResponse(refusal.to_json(), refusal.status, dict(error.headers or {}))


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse(Refusal(500, "the request could not be answered").to_json(), 500)
