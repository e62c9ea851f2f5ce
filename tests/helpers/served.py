"""A small base and two hats, served in this process."""

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from httpx2 import Response
from starlette.testclient import TestClient
from starlette.types import ASGIApp
from torch import Tensor

from lowrank.adapters import adapter_parameters, add_adapter
from lowrank.adapters.files import save_adapter
from lowrank.checkpoints.load import load
from lowrank.serve.app import build
from lowrank.serve.doorkeeper import Doorkeeper
from lowrank.serve.engine import Engine, Event, Text, TextRequest
from lowrank.serve.guard import Hosts
from lowrank.serve.server import bind, uvicorn_server
from lowrank.serve.shelf import Shelf

PORT = 7411
TOKEN = "a token of the tests alone"
WAIT = 60.0  # seconds after which what should happen has not
FACTS = "company: Aldane Foods Ltd\nperiod: Q3 2024\nrevenue: $12.5 million\nprior revenue: $10.0 million\n"


@pytest.fixture(scope="session")
def hat_folders(embedded: Path, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, Path]]:
    """Two hats that differ."""
    model, folder = load(embedded, "nf4-dq"), tmp_path_factory.mktemp("hats")
    for seed, name in enumerate(("red", "blue")):
        add_adapter(model, name, rank=2 + seed)
        for parameter in adapter_parameters(model, name).values():
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(seed))
        save_adapter(model, name, folder / name)
    return [(name, folder / name) for name in ("red", "blue")]


@pytest.fixture(scope="session")
def shelf(hat_folders: list[tuple[str, Path]]) -> Shelf:
    """The embedded base, alone and in either hat."""
    return Shelf.load([("embedded", "embedded")], hat_folders)


@pytest.fixture
def engine() -> Iterator[Engine]:
    """A thread that writes two texts at once, and lets two wait."""
    engine = Engine(active=2, waiting=2)
    yield engine
    engine.close()


@dataclass
class Served:
    """An application, and a client in this process that has its token."""

    app: ASGIApp
    client: TestClient
    doorkeeper: Doorkeeper
    engine: Engine
    told: list[str]

    def chat(self, **changes: Any) -> Response:
        """POST /v1/chat/completions of one message, short and greedy unless said otherwise."""
        body: dict[str, Any] = {
            "model": "red",
            "messages": [{"role": "user", "content": "Write a sentence."}],
            "max_tokens": 12,
            "temperature": 0,
        }
        asked = {name: value for name, value in (body | changes).items() if value != "left out"}
        return self.client.post("/v1/chat/completions", json=asked)


@pytest.fixture
def served(shelf: Shelf, engine: Engine) -> Iterator[Served]:
    """The application at http://127.0.0.1:7411."""
    doorkeeper, told = Doorkeeper(TOKEN), list[str]()
    app = build(shelf, engine, doorkeeper, Hosts(PORT), most_tokens=200, tell=told.append, body_seconds=0.5)
    address = f"http://127.0.0.1:{PORT}"
    with TestClient(app, base_url=address, headers={"authorization": f"Bearer {TOKEN}"}) as client:
        yield Served(app, client, doorkeeper, engine, told)


@dataclass
class Live:
    """A server on a port of this machine."""

    port: int
    doorkeeper: Doorkeeper
    engine: Engine

    @property
    def address(self) -> str:
        """ "http://127.0.0.1:45835" """
        return f"http://127.0.0.1:{self.port}"


@pytest.fixture
def live(shelf: Shelf, engine: Engine) -> Iterator[Live]:
    """The application behind uvicorn, in a thread."""
    bound = bind("127.0.0.1", 0)
    port = bound.getsockname()[1]
    doorkeeper = Doorkeeper(TOKEN)
    server = uvicorn_server(build(shelf, engine, doorkeeper, Hosts(port), most_tokens=200))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    yield Live(port, doorkeeper, engine)
    server.should_exit = True
    thread.join(WAIT)
    bound.close()


@dataclass
class Endless:
    """A constraint under which a text never ends, and goes on only while it may."""

    eos_ids: tuple[int, ...]
    vocab_size: int
    may_go_on: threading.Event = field(default_factory=threading.Event)
    tokens: int = 0

    def is_allowed(self, token: int) -> bool:
        """Any token but an end."""
        assert self.may_go_on.wait(WAIT)
        self.tokens += 1
        return token not in self.eos_ids

    def instead(self, token: int) -> Tensor:
        """All of them."""
        mask = torch.ones(self.vocab_size, dtype=torch.bool)
        mask[list(self.eos_ids)] = False
        return mask

    def take(self, token: int) -> None:
        """Nothing changes."""

    @property
    def unfinished(self) -> int:
        """Everything may remain."""
        return 0


@pytest.fixture
def endless(shelf: Shelf) -> Iterator[Endless]:
    """A constraint that is let go at the end of the test."""
    base = shelf.bases[0]
    constraint = Endless(base.tokenizer.eos_ids, base.model.config.vocab_size)
    yield constraint
    constraint.may_go_on.set()


@pytest.fixture
def make_text(shelf: Shelf) -> Callable[..., Text]:
    """A text to submit: make_text("red", tell, constraint=...)."""

    def make(adapter: str | None, tell: Callable[[Event], None], **changes: Any) -> Text:
        base = shelf.bases[0]
        request: dict[str, Any] = {
            "model": base.model,
            "tokenizer": base.tokenizer,
            "adapter": adapter,
            "prompt": base.tokenizer.encode("The balance sheet", bos=True),
            "max_new_tokens": 20,
        }
        return Text(TextRequest(**(request | changes)), tell)

    return make
