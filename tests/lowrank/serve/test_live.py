"""A real server on this machine: the `openai` client, clients that go away, a queue that is full."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from peers import openai
from served import FACTS, TOKEN, WAIT, Endless, Live

from lowrank.serve.engine import Engine, Text


@pytest.fixture
def client(live: Live) -> Iterator[Any]:
    """OpenAI's own client, without its retries."""
    with openai.OpenAI(base_url=f"{live.address}/v1", api_key=TOKEN, max_retries=0, timeout=WAIT) as client:
        yield client


def until(is_true: Callable[[], bool]) -> None:
    """Waits for something to become true."""
    end = time.monotonic() + WAIT
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.slow
def test_openais_client_chats_streams_and_completes(client: Any) -> None:
    assert [model.id for model in client.models.list()] == ["embedded", "red", "blue"]
    assert client.models.retrieve("blue").owned_by == "lowrank"
    asked: dict[str, Any] = {"model": "red", "temperature": 0, "max_tokens": 30}
    messages: Any = [{"role": "user", "content": "Write a sentence."}]
    answer = client.chat.completions.create(messages=messages, **asked)
    pieces = list(
        client.chat.completions.create(messages=messages, stream=True, stream_options={"include_usage": True}, **asked)
    )
    streamed = "".join(piece.choices[0].delta.content or "" for piece in pieces if piece.choices)
    assert streamed == answer.choices[0].message.content
    assert answer.usage and pieces[-1].usage and pieces[-1].usage.total_tokens == answer.usage.total_tokens
    completion = client.completions.create(prompt="The balance sheet", **asked)
    assert completion.choices[0].text and completion.choices[0].finish_reason in ("stop", "length")


@pytest.mark.slow
def test_openais_client_writes_from_facts(client: Any) -> None:
    more = {"facts": FACTS, "kind": "earnings_summary"}
    asked: dict[str, Any] = {"model": "red", "messages": [], "max_tokens": 60, "temperature": 0, "extra_body": more}
    answer = client.chat.completions.create(**asked)
    extra = answer.model_extra or {}
    assert {figure["state"] for figure in extra["lowrank"]["audits"][0]["figures"]} == {"right"}
    last = list(client.chat.completions.create(stream=True, **asked))[-1]
    assert (last.model_extra or {})["lowrank"] == extra["lowrank"]


def test_openais_client_knows_our_refusals(live: Live, client: Any) -> None:
    messages: Any = [{"role": "user", "content": "Hello"}]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="green", messages=messages)
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError, match="unsupported parameter logit_bias"):
        client.chat.completions.create(model="red", messages=messages, logit_bias={"1": 5})
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").models.list()


def test_a_full_queue_says_when_to_come_again(
    live: Live, client: Any, make_text: Callable[..., Text], endless: Endless
) -> None:
    texts = [make_text(None, lambda event: None, constraint=endless) for _ in range(4)]
    live.engine.submit(texts)
    with pytest.raises(openai.RateLimitError) as full:
        client.completions.create(model="red", prompt="x", max_tokens=1)
    assert full.value.code == "queue_full" and 1 <= int(full.value.response.headers["retry-after"]) <= 60
    live.engine.cancel(texts)
    endless.may_go_on.set()
    until(lambda: live.engine.load == (0, 0))
    assert client.completions.create(model="red", prompt="x", max_tokens=1).choices


@pytest.mark.slow
def test_clients_at_once_in_different_hats_get_what_each_gets_alone(live: Live, client: Any) -> None:
    def ask(number: int) -> str:
        model, prompt = ("embedded", "red", "blue", "red")[number], ("The balance sheet", "Net income")[number % 2]
        asked: Any = {"model": model, "prompt": prompt, "max_tokens": 20, "temperature": 0.8, "seed": number}
        if number < 2:
            return "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))
        return client.completions.create(**asked).choices[0].text

    alone = [ask(number) for number in range(4)]
    with ThreadPoolExecutor(4) as clients:
        assert list(clients.map(ask, range(4))) == alone
    assert len(set(alone)) == 4


def begin(live: Live, *, stream: bool) -> socket.socket:
    """A connection whose text never ends."""
    body = {"model": "red", "prompt": "x", "facts": FACTS, "stream": stream, "max_tokens": 200}
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1:{live.port}\r\nAuthorization: Bearer {TOKEN}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    connection = socket.create_connection(("127.0.0.1", live.port), timeout=WAIT)
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "whole"])
def test_a_client_that_goes_away_frees_the_engine(
    live: Live, endless: Endless, monkeypatch: pytest.MonkeyPatch, stream: bool
) -> None:
    monkeypatch.setattr("lowrank.serve.openai_api.grounding", lambda record, base: endless)
    connections = [begin(live, stream=stream) for _ in range(3)]
    until(lambda: sum(live.engine.load) == 3)
    for connection in connections:
        connection.close()
    until(lambda: live.engine.load[1] == 0)  # what waits goes at once
    endless.may_go_on.set()
    until(lambda: live.engine.load == (0, 0))
    assert endless.tokens < 200


@pytest.mark.slow
def test_a_client_that_does_not_read_holds_nobody_up(live: Live, client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    connections = [begin(live, stream=True) for _ in range(2)]  # nothing of the answers is read
    answer = client.completions.create(model="blue", prompt="The balance sheet", max_tokens=5)
    assert answer.choices
    until(lambda: live.engine.load == (0, 0))
    for connection in connections:
        connection.close()


def test_the_end_of_the_engine_is_told_to_who_waits(
    live: Live, engine: Engine, endless: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowrank.serve.openai_api.grounding", lambda record, base: endless)
    with begin(live, stream=True) as connection:
        until(lambda: engine.load == (1, 0))
        endless.may_go_on.set()
        engine.close()
        answer = b""
        while b"0\r\n\r\n" not in answer:
            answer += connection.recv(65536)
    assert b'"server_error"' in answer and b"[DONE]" not in answer


def test_a_stream_that_waits_says_that_it_is_there(
    live: Live, endless: Endless, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lowrank.serve.waiting.SILENCE", 0.05)
    monkeypatch.setattr("lowrank.serve.openai_api.grounding", lambda record, base: endless)
    with begin(live, stream=True) as connection:
        answer = b""
        while answer.count(b": waiting") < 2:
            answer += connection.recv(65536)
    endless.may_go_on.set()
