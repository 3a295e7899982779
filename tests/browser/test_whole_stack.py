"""The page on the real web tier and a real worker; only the model is scripted."""

import asyncio

import pytest
from playwright.async_api import Page, expect

from tests.support.browser import chromium, faultless_page
from tests.support.scripted_provider import ScriptedProvider
from tests.support.waiting import wait_until

WORDS = [f"word{n} " for n in range(40)]


@pytest.fixture
def provider() -> ScriptedProvider:
    provider = ScriptedProvider(WORDS)
    provider.gate = asyncio.Event()
    return provider


async def say(provider: ScriptedProvider, page: Page, last: str) -> None:
    """Lets the model speak until the page shows `last`."""
    assert provider.gate is not None
    provider.pace_s = 0.01
    provider.gate.set()
    await expect(page.locator("#text")).to_contain_text(last)
    provider.gate.clear()


async def ask(page: Page, base_url: str) -> None:
    await page.goto(base_url)
    await page.get_by_label("Model").select_option("openai/gpt-4o-mini")
    await page.get_by_label("Your prompt").fill("Count.")
    await page.keyboard.press("Enter")


@pytest.mark.usefixtures("worker")
async def test_an_answer_survives_a_drop_and_a_reload(base_url: str, provider: ScriptedProvider) -> None:
    async with chromium() as browser, faultless_page(browser) as page:
        await ask(page, base_url)
        await say(provider, page, "word3 ")
        await page.get_by_role("button", name="Drop the connection").click()
        await say(provider, page, "word13 ")
        await expect(page.locator("#timeline")).to_contain_text("Resumed after 1-")
        await page.reload()
        await expect(page.locator("#text")).to_contain_text("word13 ")
        await say(provider, page, "word39 ")
        await expect(page.get_by_role("status")).to_have_text("Done")
        await expect(page.locator("#text")).to_have_text("".join(WORDS))
        await expect(page.locator("#proof")).to_have_text("0, 0")


@pytest.mark.usefixtures("worker")
async def test_stop_ends_the_provider_and_keeps_what_came(base_url: str, provider: ScriptedProvider) -> None:
    async with chromium() as browser, faultless_page(browser) as page:
        await ask(page, base_url)
        await say(provider, page, "word1 ")
        await page.keyboard.press("Escape")
        await expect(page.get_by_role("status")).to_have_text("Stopped. What came is kept.")
        await expect(page.locator("#text")).to_contain_text("word1 ")
        await wait_until(lambda: provider.open == 0, message="the provider is closed")
