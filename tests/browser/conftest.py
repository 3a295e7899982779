"""One Chromium for all tests here, for starting it takes seconds; a context for each. They share an event loop for that."""

from collections.abc import AsyncIterator

import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.support.browser import chromium, faultless_page
from tests.support.scripted_sse import ScriptedServer, scripted_server


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as browser:
        yield browser


@pytest_asyncio.fixture(loop_scope="session")
async def page(browser: Browser) -> AsyncIterator[Page]:
    async with faultless_page(browser) as page:
        yield page


@pytest_asyncio.fixture(loop_scope="session")
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server
