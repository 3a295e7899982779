"""What the page is for, on a stack of real processes: it kills the worker that answers, and the answer comes all the same."""

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from tests.support.openai_server import DONE, OpenAIServer, finish, role, text, usage
from tests.support.page import answer, figure, status, timeline
from tests.support.up_process import UpProcess, running_up
from tests.support.upstream import Pause, Stall, Step, Until, words
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

ARTIFACTS = Path(__file__).parents[1] / "artifacts"
PROMPT = "Tell me a short story about a lighthouse keeper, with a program in it."
STORY = """On the westernmost rock of the archipelago stood a lighthouse, and in it lived **Mara**, who had not missed a night \
in *thirty-one years*. One autumn a bottle was washed ashore. The note in it held a program, and nothing else:

```python
def relay(keepers):
    for keeper in keepers:
        if keeper.awake:
            yield from keeper.light()
```

She read it twice. When the storm took her at last, in the middle of a sentence, another keeper was already on the stairs:

1. he read the last line of her log,
2. he went on behind it,
3. and no ship saw the light go out.
"""
BEFORE, AFTER = re.split(r"(?<=middle of a sent)", STORY)

END: list[Step] = [finish(), usage(15, len(words(STORY))), DONE]


def said(story: str, per_second: float) -> list[Step]:
    return [step for word in words(story) for step in (Pause(1 / per_second), text(word))]


def shown(story: str) -> str:
    """The text of the story as a browser shows it, its white space aside."""
    return "".join(re.sub(r"```\w*|\*|\d\. ", "", story).split())


class Stack(NamedTuple):
    """A running `lastevent up`; only the model is scripted."""

    url: str
    up: UpProcess
    upstream: OpenAIServer


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def stack() -> AsyncIterator[Stack]:
    async with OpenAIServer() as upstream:
        env = {"OPENAI_BASE_URL": upstream.url, "LASTEVENT_OPENAI_MODELS": "story,tale,saga"}
        with tempfile.TemporaryDirectory(prefix="le-") as folder:
            arguments = ("--port", "0", "--lanes", "api", "--api-workers", "2", "--allow-chaos", "--data-dir", f"{folder}/data")
            async with running_up(*arguments, LASTEVENT_LEASE_S="1", **env) as up:
                yield Stack(await up.ready(), up, upstream)


async def ask(page: Page, stack: Stack, model: str, *scripts: list[Step]) -> None:
    """Asks a model whose first call follows the first script, and so on."""
    for script in scripts:
        stack.upstream.on(model, role(), *script)
    await page.goto(stack.url)
    await page.get_by_label("Model", exact=True).select_option(f"openai/{model}")
    await page.get_by_label("Your prompt").fill(PROMPT)
    await page.keyboard.press("Enter")


async def assert_all_of_it_came(page: Page) -> None:
    await expect(status(page)).to_have_text("Done", timeout=20_000)
    assert "".join((await answer(page).inner_text()).split()) == shown(STORY)
    await expect(figure(page, "Lost, doubled")).to_have_text("0, 0")


async def test_the_answer_survives_a_drop_and_the_death_of_its_worker(stack: Stack, page: Page) -> None:
    await ask(page, stack, "story", [*said(BEFORE, 60), Stall()], [*said(STORY, 240), *END])
    await expect(answer(page)).to_contain_text("Mara")
    await page.get_by_role("button", name="Drop the connection").click()
    await expect(answer(page)).to_contain_text("middle of a sent")
    await page.get_by_role("button", name="Kill the worker").click()
    await expect(timeline(page).filter(has_text="SIGKILL to its worker api-")).to_have_count(1)
    await expect(timeline(page).filter(has_text="Taken over: its worker was lost")).to_have_count(1, timeout=20_000)
    await page.get_by_role("button", name="Open a second reader").click()
    await assert_all_of_it_came(page)
    await expect(page.locator("#second-status")).to_have_text("the same text, letter for letter; lost 0, doubled 0")
    await expect(figure(page, "Attempts")).to_have_text("2")
    killed = [line for line in stack.up.err if re.search(r"api-\d │ gets SIGKILL \(pid \d+\)", line)]
    assert len(killed) == 1, stack.up.err
    await keep_a_picture(page)


async def keep_a_picture(page: Page) -> None:
    await page.get_by_role("button", name="Close the second reader").click()
    await page.set_viewport_size({"width": 1160, "height": 1000})
    ARTIFACTS.mkdir(exist_ok=True)
    await page.screenshot(path=ARTIFACTS / "page.png", full_page=True)


async def test_a_reload_in_mid_stream_goes_on_where_the_answer_is(stack: Stack, page: Page) -> None:
    gate = asyncio.Event()
    await ask(page, stack, "tale", [*said(BEFORE, 240), Until(gate), *said(AFTER, 240), *END])
    await expect(answer(page)).to_contain_text("middle of a sent")
    await page.reload()
    await expect(answer(page)).to_contain_text("middle of a sent")
    gate.set()
    await assert_all_of_it_came(page)


async def test_stop_ends_the_providers_call_and_keeps_what_came(stack: Stack, page: Page) -> None:
    await ask(page, stack, "saga", [*said(BEFORE, 240), Stall()])
    await expect(answer(page)).to_contain_text("middle of a sent")
    await page.keyboard.press("Escape")
    await expect(status(page)).to_have_text("Stopped. What came is kept.")
    await expect(answer(page)).to_contain_text("middle of a sent")
    await wait_until(lambda: stack.upstream.requests[-1].left_at is not None, message="the provider is left")
