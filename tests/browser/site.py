"""The site, opened from a disk in headless Chromium: `make test-browser`, which builds it before."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from chromium import launch
from playwright.sync_api import Page, expect, sync_playwright

SITE = Path(__file__).resolve().parents[2] / "build" / "site"
PAGES = sorted(path.name for path in (SITE.parent.parent / "docs").glob("*.md"))
PATIENCE = 30_000  # milliseconds


@pytest.fixture(scope="module")
def page() -> Iterator[Page]:
    """A page 1280 pixels wide, which must not ask for anything that is not on the disk, nor fail."""
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as driver:
        browser = launch(driver)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        wrong = list[str]()
        page.on("request", lambda request: None if request.url.startswith("file:") else wrong.append(request.url))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        yield page
        browser.close()
    assert wrong == []


def opened(page: Page, name: str) -> None:
    """Opens a page of the site by the name of its source."""
    page.goto((SITE / name).with_suffix(".html").as_uri())


def test_the_search_finds_a_page_from_the_disk(page: Page) -> None:
    opened(page, "index.md")
    page.click("input[name=query]")
    page.keyboard.type("double quantization")
    expect(page.locator(".md-search-result__item").first).to_be_visible()
    page.locator(".md-search-result__link").first.click()
    expect(page.locator("article")).to_contain_text("double", ignore_case=True)


def test_formulas_are_drawn(page: Page) -> None:
    opened(page, "math.md")
    drawn = page.locator(".formula math")
    assert drawn.count() > 20
    heights = [one.bounding_box() for one in drawn.all()]
    assert all(box is not None and box["height"] > 5 for box in heights)
    expect(page.locator("article")).not_to_contain_text("\\begin")


@pytest.mark.parametrize("width", [1280, 400])
@pytest.mark.parametrize("name", PAGES)
def test_no_line_of_code_is_cut(page: Page, name: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    opened(page, name)
    cut = "[...document.querySelectorAll('pre > code')].filter(e => e.scrollWidth > e.clientWidth + 1).length"
    assert page.evaluate(cut) == 0
