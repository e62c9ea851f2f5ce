"""Attacks: other names, other sites, no token, large and slow bodies; and what every answer carries."""

import asyncio
import http.client
import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest
from served import PORT, TOKEN, WAIT, Live, Served
from starlette.types import Message

from lowrank.serve.guard import HEADERS, MAX_BODY, MAX_FILE, Hosts

OWN = f"127.0.0.1:{PORT}"


@pytest.mark.parametrize(
    ("host", "is_own"),
    [
        (OWN, True),
        (f"localhost:{PORT}", True),
        (f"LOCALHOST:{PORT}", True),
        (f"[::1]:{PORT}", True),
        ("127.0.0.1", False),
        ("127.0.0.1:80", False),
        (f"evil.example:{PORT}", False),
        (f"localhost.evil.example:{PORT}", False),
        (f"127.0.0.1.evil.example:{PORT}", False),
        (f"127.0.0.1:{PORT}@evil.example", False),
        ("", False),
    ],
)
def test_a_name_that_was_pointed_at_this_machine_is_refused(served: Served, host: str, is_own: bool) -> None:
    for path in ("/", "/v1/models", "/api/state"):
        answer = served.client.get(path, headers={"host": host})
        assert (answer.status_code == 421) is not is_own
        if not is_own:
            assert answer.json()["error"]["code"] == "wrong_host"


def test_a_server_for_others_takes_addresses_and_its_own_names() -> None:
    hosts = Hosts(PORT, ["Box.example:80"], any_number=True)
    assert all(map(hosts.has, (f"192.168.1.7:{PORT}", f"[fe80::1]:{PORT}", "box.example:80", OWN)))
    assert not any(map(hosts.has, ("evil.example", f"192.168.1.7.evil.example:{PORT}", "", "[evil", "box.example")))


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", f"http://127.0.0.1:{PORT + 1}", f"http://localhost:{PORT}", "file://"]
)
def test_a_page_of_another_site_is_refused_even_with_the_token(served: Served, origin: str) -> None:
    answer = served.client.get("/v1/models", headers={"origin": origin})
    assert answer.status_code == 403 and answer.json()["error"]["code"] == "wrong_origin"
    assert not [name for name in answer.headers if name.startswith("access-control")]
    assert served.client.get("/v1/models", headers={"origin": f"http://{OWN}"}).status_code == 200


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none"])
def test_what_a_browser_says_of_another_site_is_believed(served: Served, site: str) -> None:
    headers = {"sec-fetch-site": site}
    assert served.client.get("/v1/models", headers=headers).status_code == 403
    assert served.client.post("/session", json={"code": served.doorkeeper.code}, headers=headers).status_code == 403
    assert served.client.get("/", headers=headers).status_code == 200  # the page is nobody's secret


@pytest.mark.parametrize("authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}."])
def test_the_api_needs_its_token(served: Served, authorization: str | None) -> None:
    del served.client.headers["authorization"]
    headers = {} if authorization is None else {"authorization": authorization}
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions"), ("GET", "/v1/nothing")):
        answer = served.client.request(method, path, headers=headers)
        assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"
    assert served.client.get(f"/v1/models?token={TOKEN}&api_key={TOKEN}").status_code == 401


def test_the_workbench_needs_both_halves_of_a_session_and_the_token_is_neither(served: Served) -> None:
    own = {"origin": f"http://{OWN}"}
    assert served.client.get("/api/state").status_code == 401
    assert served.client.post("/session", json={"code": served.doorkeeper.code}).status_code == 403  # no Origin
    assert served.client.post("/session", json={"code": "AAAA-AAAA"}, headers=own).status_code == 401
    entered = served.client.post("/session", json={"code": served.doorkeeper.code}, headers=own)
    cookie = entered.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and entered.json()["key"] not in cookie
    assert served.client.get("/api/state").status_code == 401  # the cookie alone
    key = {"x-lowrank-key": entered.json()["key"]}
    assert served.client.get("/api/state", headers=key).status_code == 200
    assert served.client.get("/v1/models", headers={"authorization": "", **key}).status_code == 401
    assert served.client.delete("/session", headers=own | key).status_code == 204
    served.client.cookies.clear()
    assert served.client.get("/api/state", headers=key).status_code == 401  # the key alone, and no session


def test_every_answer_has_the_headers_also_a_refusal(served: Served) -> None:
    for path, headers in (("/", {}), ("/v1/models", {}), ("/nothing", {}), ("/", {"host": "evil.example"})):
        answer = served.client.get(path, headers=headers)
        assert HEADERS.items() <= dict(answer.headers).items()
    policy = HEADERS["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy and "*" not in policy


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_a_body_that_says_it_is_too_large_is_not_read(served: Served, path: str) -> None:
    answer = served.client.post(path, content=b"x" * (MAX_BODY + 1))
    assert answer.status_code == 413 and answer.json()["error"]["code"] == "body_too_large"
    assert answer.headers["connection"] == "close"


def test_a_body_in_chunks_that_grows_too_large_is_refused(served: Served) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        for _ in range(10 * MAX_FILE // 65536):
            sent += 65536
            yield b"x" * 65536

    answer = served.client.post("/v1/completions", content=chunks())
    assert "content-length" not in answer.request.headers and answer.status_code == 413
    assert served.client.post("/", content=b"x").status_code == 413  # a page takes none


@pytest.mark.parametrize("length", ["-1", "1e3", "99999999999999999999", "0x10"])
def test_a_length_that_is_none_is_refused(served: Served, length: str) -> None:
    headers = {"content-length": length, "content-type": "application/json"}
    assert served.client.post("/v1/completions", headers=headers, content=b"{}").status_code == 413


def answer_of(connection: socket.socket) -> int:
    """The status that a connection answers with."""
    response = http.client.HTTPResponse(connection, method="POST")
    response.begin()
    return response.status


def begin(port: int, *more: str) -> socket.socket:
    """A connection on which a request with the token has begun."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=WAIT)
    lines = ("POST /v1/completions HTTP/1.1", f"Host: 127.0.0.1:{port}", f"Authorization: Bearer {TOKEN}", *more)
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    return connection


def test_chunks_on_a_real_connection_are_counted(live: Live) -> None:
    with begin(live.port, "Transfer-Encoding: chunked") as connection:
        with suppress(OSError):  # once it hangs up on us
            for _ in range(MAX_BODY // 0x10000 + 2):
                connection.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")
        assert answer_of(connection) == 413


def test_two_hosts_in_one_request_are_refused(live: Live) -> None:
    with begin(live.port, "Host: evil.example", "Content-Length: 2") as connection:
        assert answer_of(connection) in (400, 421)


def test_a_body_that_does_not_come_is_not_waited_for(served: Served) -> None:
    sent = list[Message]()

    parts: Iterator[Message] = iter([{"type": "http.request", "body": b"{", "more_body": True}])

    async def receive() -> Message:
        if (part := next(parts, None)) is not None:
            return part
        await asyncio.sleep(WAIT)
        raise AssertionError("it was waited for")

    async def send(message: Message) -> None:
        sent.append(message)

    headers = [(b"host", OWN.encode()), (b"authorization", f"Bearer {TOKEN}".encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": headers}
    asyncio.run(served.app(scope, receive, send))
    assert sent[0]["status"] == 408
