"""Debian's Chromium, of this machine, for the tests in tests/browser."""

import os

from playwright.sync_api import Browser, Playwright

# As root and without a network: Chromium's own errands would be refused.
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")


def launch(driver: Playwright, *flags: str) -> Browser:
    """A browser of its own; CHROMIUM names another file than Debian's."""
    return driver.chromium.launch(
        executable_path=os.environ.get("CHROMIUM", "/usr/bin/chromium"), args=[*FLAGS, *flags]
    )
