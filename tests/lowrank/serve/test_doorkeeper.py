"""Tokens, codes, sessions."""

import hmac

import pytest

from lowrank.serve import doorkeeper as module
from lowrank.serve.doorkeeper import ATTEMPTS, LETTERS, WITHIN, Doorkeeper
from lowrank.serve.errors import Refusal


def test_a_token_is_drawn_and_only_it_is_let_in() -> None:
    keeper = Doorkeeper()
    assert len(keeper.token) >= 43 and keeper.token != Doorkeeper().token  # 256 bits in base 64
    assert keeper.is_token(f"Bearer {keeper.token}") and keeper.is_token(f"bearer {keeper.token}")
    wrong = ("", "Bearer", f"Basic {keeper.token}", keeper.token, f"Bearer {keeper.token}x", f"Bearer {keeper.code}")
    assert not any(map(keeper.is_token, wrong))


@pytest.mark.parametrize("token", ["short", "sixteen letters and one that is not ASCII: ä", "a line\nof sixteen signs"])
def test_a_token_of_the_users_own_must_be_long_and_plain(token: str) -> None:
    with pytest.raises(ValueError, match=r"^the token must be 16 ASCII characters or more"):
        Doorkeeper(token)


def test_secrets_are_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = list[tuple[bytes, bytes]]()

    def compare(a: bytes, b: bytes) -> bool:
        compared.append((a, b))
        return a == b

    keeper = Doorkeeper()
    session = keeper.open_session(keeper.code)
    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert not keeper.is_token("Bearer x")
    with pytest.raises(Refusal):
        keeper.open_session("x")
    assert keeper.is_session(session.cookie, session.key) and not keeper.is_session(session.cookie, "x")
    assert len(compared) == 6
    assert {len(one) for pair in compared for one in pair} == {32}  # hashes: lengths tell nothing either


def test_a_code_opens_one_session_in_any_way_of_writing_it_and_the_next_is_told() -> None:
    codes = list[str]()
    keeper = Doorkeeper(new_code=codes.append)
    first = keeper.open_session(f" {codes[0].lower().replace('-', ' ')} ")
    assert keeper.is_session(*first) and len(codes) == 2 and set(codes[1]) <= {*LETTERS, "-"}
    with pytest.raises(Refusal) as again:
        keeper.open_session(codes[0])
    assert again.value.status == 401
    second = keeper.open_session(codes[1])
    assert not keeper.is_session(first.cookie, second.key) and not keeper.is_session("", "")
    keeper.close_session(first.cookie)
    assert not keeper.is_session(*first) and keeper.is_session(*second)


def test_codes_cannot_be_tried_one_after_another() -> None:
    now = [0.0]
    keeper = Doorkeeper(clock=lambda: now[0])
    for _ in range(ATTEMPTS):
        with pytest.raises(Refusal, match="not the one"):
            keeper.open_session("AAAA-AAAA")
    with pytest.raises(Refusal, match=r"^too many wrong codes: try again in 61 s$") as stopped:
        keeper.open_session(keeper.code)
    assert stopped.value.status == 429 and stopped.value.headers["retry-after"] == "61"
    now[0] += WITHIN
    assert keeper.open_session(keeper.code)


def test_sessions_are_bounded() -> None:
    keeper = Doorkeeper()
    sessions = [keeper.open_session(keeper.code) for _ in range(module.SESSIONS + 1)]
    assert [keeper.is_session(*session) for session in sessions] == [False] + [True] * module.SESSIONS
