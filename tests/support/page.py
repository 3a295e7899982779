"""The page as a user sees it: where to look, and how a job is asked for."""

import re

from playwright.async_api import Locator, Page, expect

from tests.support.scripted_sse import ScriptedJob, ScriptedServer
from tests.support.waiting import wait_until


async def ask(page: Page, server: ScriptedServer, prompt: str = "Say hello.") -> ScriptedJob:
    """Opens the page, sends a prompt with Enter, and gives the job that the server made of it."""
    await page.goto(server.url)
    await expect(page.get_by_role("button", name="Send")).to_be_enabled()
    await page.get_by_label("Your prompt").fill(prompt)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(r"#job_"))
    job = server.jobs[page.url.partition("#")[2]]
    await wait_until(lambda: bool(job.connections), message="the page follows the job")
    return job


def answer(page: Page) -> Locator:
    return page.locator("#text")


def status(page: Page) -> Locator:
    return page.locator("#status")


def timeline(page: Page) -> Locator:
    return page.locator("#timeline li")


def figure(page: Page, name: str) -> Locator:
    return page.locator(".figures div", has_text=name).locator("dd")


async def overflow(page: Page) -> int:
    """Pixels by which the page is wider than its window."""
    wider: int = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return wider
