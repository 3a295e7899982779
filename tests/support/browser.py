"""A real headless Chromium, driven by Playwright; nothing of it reaches past loopback."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from playwright.async_api import Browser, Page, async_playwright

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Skips the test where there is none; with `LASTEVENT_REQUIRE_BROWSER=1` that fails it."""
    if CHROMIUM is None:
        reason = "no chromium on PATH; on Debian: apt-get install chromium"
        (pytest.fail if os.environ.get("LASTEVENT_REQUIRE_BROWSER") else pytest.skip)(reason)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def faultless_page(browser: Browser) -> AsyncIterator[Page]:
    """A tab of its own. The test fails on an uncaught error of the page, and on what its content policy forbids."""
    context = await browser.new_context(viewport={"width": 1100, "height": 800})
    context.set_default_timeout(10_000)
    page = await context.new_page()
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Content Security Policy" in said.text else None)
    try:
        yield page
    finally:
        await context.close()
    assert faults == []
