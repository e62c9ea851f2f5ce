"""The workbench in headless Chromium: `make test-browser`.

The page's policy lets nobody evaluate texts in it, so that waiting goes by locators.
"""

import http.server
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docx
import pytest
from chromium import launch
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect, sync_playwright
from served import Endless, Live, endless, engine, hat_folders, live, make_text, shelf

from lowrank.model.completion import Completion
from lowrank.model.continuous_batch import ContinuousBatch, Request
from lowrank.serve.engine import Text

__all__ = ["endless", "engine", "hat_folders", "live", "make_text", "shelf"]

FLAGS = ("--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP evil.example 127.0.0.1")
TABLE = (
    "company,period,revenue,prior revenue\nAldane Foods Ltd,Q3 2024,$12.5 million,$10.0 million\n"
    "Bergholm AG,Q3 2024,$97.3 million,$101.4 million\n"
)
MEMO = "# Results\n\n- Revenue: $12.5 million\n- Prior revenue: $99.0 million\n\nRevenue was **$12.5 million**.\n"
PATIENCE = 30.0  # seconds that a browser on a busy machine may take for one step
EVIL = '<img src=x onerror="alert(1)"><script>alert(2)</script>'


@pytest.fixture(scope="module")
def driver() -> Iterator[Playwright]:
    """Playwright, without a browser of its own."""
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(driver: Playwright) -> Iterator[Browser]:
    """Chromium."""
    browser = launch(driver, *FLAGS)
    yield browser
    browser.close()


class Watched:
    """A page, all that it asked for, and all that went wrong in it."""

    def __init__(self, context: BrowserContext, live: Live) -> None:
        self.page, self.live = context.new_page(), live
        self.asked = list[str]()
        self.wrong = list[str]()
        self.dialogs = list[str]()
        self.page.set_default_timeout(PATIENCE * 1000)
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.page.on("console", self._heard)
        self.page.on("dialog", lambda dialog: (self.dialogs.append(dialog.message), dialog.dismiss()))

    def _heard(self, message: Any) -> None:
        refused = "Failed to load resource: the server responded"  # a refusal of ours that the page tells
        if message.type in ("error", "warning") and not message.text.startswith(refused):
            self.wrong.append(message.text)

    def enter(self) -> Page:
        """Opens the workbench by the address that the terminal shows."""
        self.page.goto(f"{self.live.address}/#{self.live.doorkeeper.code}")
        expect(self.page.locator("#desk")).to_be_visible()
        return self.page

    def give(self, content: str = TABLE, name: str = "companies.csv", kind: str = "earnings_summary") -> None:
        """Chooses a file."""
        self.page.select_option("#kind", kind)
        files = [{"name": name, "mimeType": "text/csv", "buffer": content.encode()}]
        self.page.set_input_files("#file", files)  # type: ignore[arg-type]
        expect(self.page.locator("#taken")).to_be_visible()

    def write(self, sides: int = 1) -> None:
        """Presses Write, and waits for the documents."""
        self.page.click("#write")
        expect(self.page.locator(".export:visible")).to_have_count(sides, timeout=PATIENCE * 1000)


Open = Callable[..., Watched]


@pytest.fixture
def open_page(browser: Browser, live: Live) -> Iterator[Open]:
    """Pages of a new profile each: open_page(color_scheme="dark")."""
    opened = list[tuple[BrowserContext, Watched]]()

    def make(**options: Any) -> Watched:
        context = browser.new_context(**({"viewport": {"width": 1440, "height": 900}} | options))
        opened.append((context, Watched(context, live)))
        return opened[-1][1]

    yield make
    for context, watched in opened:
        assert watched.wrong == [] and watched.dialogs == []
        foreign = [url for url in watched.asked if not url.startswith((live.address + "/", f"blob:{live.address}/"))]
        assert foreign == [], "a page loads nothing from outside"
        context.close()


@dataclass(eq=False)
class DictatedRow:
    """A row of a batch whose text is given."""

    text: str
    written: int = 0
    shown: int = 0
    error: None = None

    @property
    def has_ended(self) -> bool:
        """True once its last letter is written."""
        return self.written >= len(self.text)

    @property
    def completion(self) -> Completion | None:
        """The whole of it then."""
        return Completion(self.text, tuple(range(len(self.text))), "end of text") if self.has_ended else None

    def new_text(self) -> str:
        """The letters since the last call."""
        begin, self.shown = self.shown, self.written
        return self.text[begin : self.written]


@pytest.fixture
def dictated(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Has the model write a text that is given, a letter a step."""

    def dictate(text: str) -> None:
        rows: list[DictatedRow] = []

        def add(batch: ContinuousBatch, request: Request) -> DictatedRow:
            rows.append(DictatedRow(text))
            return rows[-1]

        def step(batch: ContinuousBatch) -> list[DictatedRow]:
            moved = list(rows)
            for row in moved:
                row.written += 1
            rows[:] = [row for row in moved if not row.has_ended]
            return moved

        monkeypatch.setattr(ContinuousBatch, "add", add)
        monkeypatch.setattr(ContinuousBatch, "step", step)
        monkeypatch.setattr(ContinuousBatch, "cancel", lambda batch, row: rows.remove(row))

    return dictate


def until(is_true: Callable[[], bool]) -> None:
    """Waits for something to become true on the server."""
    end = time.monotonic() + PATIENCE
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_the_code_opens_one_browser_and_leaves_no_trace_in_the_address(open_page: Open, live: Live) -> None:
    code = live.doorkeeper.code
    first = open_page()
    page = first.enter()
    assert page.url == f"{live.address}/"
    page.reload()
    expect(page.locator("#desk")).to_be_visible()  # the session stays
    assert all(code not in url and live.doorkeeper.token not in url for url in first.asked)
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"] and cookie["sameSite"] == "Strict" and page.evaluate("document.cookie") == ""
    second = open_page().page
    second.goto(f"{live.address}/#{code}")
    expect(second.get_by_role("alert")).to_have_text("this code is not the one that the terminal shows now")
    second.get_by_label("Code").fill(live.doorkeeper.code.lower())
    second.get_by_role("button", name="Open").click()
    expect(second.locator("#desk")).to_be_visible()
    second.get_by_role("button", name="Lock").click()
    expect(second.get_by_label("Code")).to_be_focused()
    expect(page.locator("#desk")).to_be_visible()


def test_a_document_from_a_file_with_every_figure_linked_to_its_cell(
    open_page: Open, dictated: Callable[[str], None], tmp_path: Path
) -> None:
    dictated(MEMO)
    watched = open_page()
    page = watched.enter()
    watched.give()
    expect(page.locator("#record option")).to_have_count(2)
    watched.write()
    letter = page.locator(".letter")
    expect(letter.get_by_role("heading", name="Results")).to_be_visible()
    assert letter.inner_text().count("$12.5 million") == 2 and "**" not in letter.inner_text()
    figures = letter.locator(".figure")
    kinds = [figures.nth(place).get_attribute("class") for place in range(figures.count())]
    assert kinds == ["figure right", "figure wrong", "figure right"]
    figures.first.hover()
    card = page.locator("#card")
    expect(card).to_contain_text("revenue: $12.5 million")
    expect(card).to_contain_text("companies.csv · row 2 · column revenue")
    expect(page.locator("#cells tr.seen th")).to_have_text("revenue")
    page.mouse.move(0, 0)
    expect(card).to_be_hidden()
    figures.nth(1).focus()  # the keyboard sees what the mouse sees
    expect(card).to_contain_text("Not in the facts")
    assert figures.nth(1).get_attribute("aria-describedby") == "card"
    page.keyboard.press("Escape")
    expect(card).to_be_hidden()
    expect(page.locator(".tally")).to_contain_text("3 figures: 2 in the facts, 2 under their own name")
    expect(page.locator(".faults")).to_contain_text("not in the facts: $99.0 million")
    expect(page.locator("#spoken")).to_contain_text("red: written")
    for name, ending in (("Word", "docx"), ("HTML", "html"), ("Markdown", "md"), ("Audit", "html")):
        with page.expect_download() as download:
            page.get_by_role("button", name=name).click()
        saved = tmp_path / download.value.suggested_filename
        download.value.save_as(saved)
        assert saved.suffix == f".{ending}" and saved.name.startswith("Aldane-Foods-Ltd-red")
    assert (tmp_path / "Aldane-Foods-Ltd-red.md").read_text() == MEMO
    words = docx.Document(str(tmp_path / "Aldane-Foods-Ltd-red.docx")).paragraphs
    assert [word.text for word in words][:2] == ["Results", "Revenue: $12.5 million"]


def test_a_file_is_dropped_on_the_page(open_page: Open) -> None:
    page = open_page().enter()
    page.select_option("#kind", "earnings_summary")
    dropped = page.evaluate_handle(
        "text => { const data = new DataTransfer(); data.items.add(new File([text], 'dropped.csv')); return data; }",
        TABLE,
    )
    page.dispatch_event("#documents", "drop", {"dataTransfer": dropped})
    expect(page.locator("#file-name")).to_have_text("dropped.csv")
    page.select_option("#record", "2")
    expect(page.locator("#cells")).to_contain_text("$97.3 million")
    expect(page.locator("#cells tbody tr").first).to_contain_text("row 3 · column company")


def test_a_document_marks_no_row_of_another_record(open_page: Open, dictated: Callable[[str], None]) -> None:
    dictated(MEMO)
    watched = open_page()
    page = watched.enter()
    watched.give()
    watched.write()
    expect(page.locator("#cells .stated")).to_have_count(page.locator("#cells tbody tr").count())
    page.select_option("#record", "2")
    expect(page.locator("#cells")).to_contain_text("$97.3 million")
    page.locator(".letter .figure").first.hover()
    expect(page.locator("#card")).to_contain_text("companies.csv · row 2 · column revenue")
    expect(page.locator("#cells .stated, #cells tr.seen")).to_have_count(0)
    page.select_option("#record", "1")
    expect(page.locator("#cells .stated").first).to_be_visible()


def test_two_hats_side_by_side_by_the_real_model_and_the_keyboard_alone(open_page: Open) -> None:
    watched = open_page()
    page = watched.enter()
    page.get_by_role("button", name="Try an example").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Write")).to_be_focused()
    page.get_by_label("Compare with").select_option("blue")
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Longest, in tokens").fill("60")
    page.get_by_role("button", name="Write").focus()
    page.keyboard.press("Enter")
    expect(page.locator(".export:visible")).to_have_count(2, timeout=PATIENCE * 1000)
    assert page.locator(".side h2").all_inner_texts() == ["red", "blue"]
    boxes = [page.locator(".side").nth(number).bounding_box() for number in range(2)]
    assert boxes[0] and boxes[1] and boxes[0]["y"] == boxes[1]["y"] and boxes[0]["x"] < boxes[1]["x"]
    for letter in page.locator(".letter").all():
        assert letter.locator(".figure.wrong").count() == 0  # it is grounded


def test_what_is_in_facts_names_and_texts_is_text(open_page: Open, dictated: Callable[[str], None]) -> None:
    dictated(f"# {EVIL}\n\n- **{EVIL}** $12.5 million\n\n| {EVIL} | b |\n|---|---|\n| {EVIL} | $12.5 million |\n")
    watched = open_page()
    page = watched.enter()
    facts = f"company: {EVIL}\n{EVIL}: $12.5 million\nrevenue: {EVIL}\n<b>no label</b>\n"
    watched.give(facts, f"{EVIL}.txt", "document")
    expect(page.locator("#cells")).to_contain_text(EVIL)
    expect(page.locator("#notes")).to_contain_text("<b>no label</b>")
    watched.write()
    expect(page.locator(".letter")).to_contain_text(EVIL)
    page.locator(".letter .figure").first.hover()
    expect(page.locator("#card")).to_contain_text("<img")
    for place in ("#open", "#card", "#spoken"):
        assert page.locator(f"{place} img, {place} script, {place} [onerror], {place} b").count() == 0


def test_mistakes_are_told_in_their_place(
    open_page: Open, live: Live, make_text: Callable[..., Text], endless: Endless
) -> None:
    watched = open_page()
    page = watched.enter()
    page.get_by_role("button", name="Write").click()
    expect(page.locator("#write-error")).to_contain_text("There are no facts yet")
    page.set_input_files("#file", [{"name": "a.csv", "mimeType": "text/csv", "buffer": b"\x00"}])
    expect(page.locator("#facts-error")).to_contain_text("a.csv: must be text")
    page.get_by_role("button", name="Paste text").click()
    page.get_by_label("Facts, a line each").fill("revenue: $12.5 million")
    page.get_by_role("button", name="Read these facts").click()
    expect(page.locator("#file-name")).to_have_text("pasted.txt")
    expect(page.locator("#facts-error")).to_be_hidden()
    texts = [make_text(None, lambda event: None, constraint=endless) for _ in range(4)]
    live.engine.submit(texts)
    page.get_by_role("button", name="Write").click()
    expect(page.locator("#write-error")).to_contain_text("too many texts are waiting: try again in")
    live.engine.cancel(texts)
    endless.may_go_on.set()
    live.doorkeeper.close_session(page.context.cookies()[0]["value"])
    page.get_by_role("button", name="Write").click()
    expect(page.locator("#enter-error")).to_contain_text("the workbench is locked")


@pytest.mark.parametrize("ends", ["stop", "close"])
def test_stop_and_a_page_that_is_closed_free_the_engine(
    open_page: Open, live: Live, endless: Endless, monkeypatch: pytest.MonkeyPatch, ends: str
) -> None:
    monkeypatch.setattr("lowrank.serve.workbench.grounding", lambda record, base: endless)
    watched = open_page()
    page = watched.enter()
    watched.give()
    page.select_option("#other", "blue")
    page.click("#write")
    until(lambda: sum(live.engine.load) == 2)
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    if ends == "stop":
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name="Write")).to_be_focused()
        expect(page.locator(".side-head .state").first).to_have_text("stopped")
    else:
        page.close()
    endless.may_go_on.set()
    until(lambda: live.engine.load == (0, 0))
    assert endless.tokens < 100


class Elsewhere(http.server.BaseHTTPRequestHandler):
    """A page of another site that tries to use the workbench of whoever visits it."""

    target = ""

    def do_GET(self) -> None:
        """The page."""
        script = f"""
            const asked = (path, options) => fetch("{self.target}" + path, options)
              .then((answer) => "answered " + answer.type, () => "refused");
            const json = {{"content-type": "application/json"}};
            const body = JSON.stringify({{code: "AAAA-AAAA"}});
            Promise.all([
              asked("/api/state", {{credentials: "include"}}),
              asked("/session", {{method: "POST", credentials: "include", headers: json, body}}),
              asked("/v1/models"),
              asked("/session", {{method: "POST", mode: "no-cors", credentials: "include", body}}),
              new Promise((done) => {{ const one = document.createElement("script"); one.type = "module";
                one.src = "{self.target}/app.js"; one.onload = () => done("ran"); one.onerror = () => done("refused");
                document.head.append(one); }}),
            ]).then((all) => {{ document.getElementById("told").textContent = JSON.stringify(all); }});"""
        page = f"<p id=told></p><iframe src='{self.target}/'></iframe><script>{script}</script>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.end_headers()
        self.wfile.write(page.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


def test_a_page_of_another_site_gets_nothing_and_frames_nothing(
    browser: Browser, live: Live, open_page: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Elsewhere, "target", live.address)
    other = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere)
    thread = threading.Thread(target=other.serve_forever)
    thread.start()
    context = browser.new_context()
    try:
        visited = Watched(context, live)
        visited.enter()  # it has a session, so that its cookies would be sent
        for host in ("127.0.0.1", "evil.example"):  # of the same site by the browser's book, and of another
            visited.page.goto(f"http://{host}:{other.server_port}/")
            told = visited.page.locator("#told")
            expect(told).not_to_be_empty()
            assert json.loads(told.inner_text()) == ["refused"] * 5
            frame = visited.page.frames[1]
            assert frame.url.startswith("chrome-error:")
        assert not live.doorkeeper._wrong  # no code of its was even tried
    finally:
        context.close()
        other.shutdown()
        thread.join()
        other.server_close()


def test_a_name_that_is_pointed_here_sees_no_page(browser: Browser, live: Live) -> None:
    page = browser.new_page()
    answer = page.goto(f"http://evil.example:{live.port}/#{live.doorkeeper.code}")
    assert answer is not None and answer.status == 421 and "desk" not in page.content()
    page.close()


@pytest.mark.parametrize("name", ["wide", "dark", "phone"])
def test_it_is_whole_on_every_screen(open_page: Open, dictated: Callable[[str], None], name: str) -> None:
    options: dict[str, dict[str, Any]] = {
        "wide": {},
        "dark": {"color_scheme": "dark", "viewport": {"width": 1180, "height": 820}},
        "phone": {"viewport": {"width": 390, "height": 844}, "has_touch": True, "reduced_motion": "reduce"},
    }
    dictated(MEMO)
    watched = open_page(**options[name])
    page = watched.enter()
    watched.give()
    watched.write()
    figure = page.locator(".letter .figure").first
    figure.tap() if name == "phone" else figure.hover()
    expect(page.locator("#card")).to_be_visible()
    box, width = page.locator("#card").bounding_box(), options[name].get("viewport", {}).get("width", 1440)
    assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= width
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    light = sum(map(int, re.findall(r"\d+", paper)[:3]))
    assert (light < 150) is (name == "dark")
    for control in page.locator("button:visible, input:visible, select:visible, textarea:visible").all():
        assert control.evaluate("one => one.labels?.length > 0 || one.textContent.trim() !== ''")
