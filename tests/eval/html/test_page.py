"""The frame of a page."""

from lowrank.eval.html.page import escape


def test_escape_shows_what_cannot_be_seen() -> None:
    assert escape("<a b=\"c\" d='e'>&") == "&lt;a b=&quot;c&quot; d=&#x27;e&#x27;&gt;&amp;"
    assert escape("\x00\x1b\x7f\x85\ud800\t\n") == "␀␛␡��\t\n"
