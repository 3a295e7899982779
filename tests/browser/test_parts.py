"""The page's other parts in a real browser: options, models without a key, recent jobs, the timeline, what one may break."""

import json
import re
from typing import Any

import pytest
from playwright.async_api import Page, expect

from tests.support.page import answer, ask, figure, status, timeline
from tests.support.scripted_sse import ScriptedServer
from tests.support.waiting import wait_until

pytestmark = pytest.mark.asyncio(loop_scope="session")

GROWING = """# Title

Some *words* and a [link][1].

- a
- b
  - c

```py
x = '<b>'
```

| a | b |
|---|---|
| 1 | 2 |

[1]: https://x.example/
"""


class TestComposer:
    async def test_options_are_folded_away_and_go_along_where_they_were_set(self, server: ScriptedServer, page: Page) -> None:
        await page.goto(server.url)
        await expect(page.get_by_label("Temperature")).to_be_hidden()
        await page.get_by_text("Options", exact=True).click()
        await page.get_by_label("System message").fill("Be terse.")
        await page.get_by_label("Max tokens").fill("12")
        await page.get_by_label("Temperature").fill("0.5")
        await page.get_by_label("When its worker is lost").select_option("restart")
        await page.get_by_label("Your prompt").fill("Hi")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#job")).to_be_visible()
        (sent,) = [json.loads(seen.body) for seen in server.seen if seen.method == "POST"]
        assert sent == {
            "model": "local/smollm2-135m-instruct", "prompt": "Hi", "metadata": {"prompt": "Hi"}, "system": "Be terse.",
            "max_tokens": 12, "temperature": 0.5, "on_interrupt": "restart",
        }  # fmt: skip

    async def test_a_model_whose_key_is_missing_says_which_variable_to_set(self, server: ScriptedServer, page: Page) -> None:
        server.models = ["openai/gpt-4o-mini", "local/smollm2-135m-instruct"]
        server.missing_keys = {"openai": "OPENAI_API_KEY"}
        await page.goto(server.url)
        await expect(page.get_by_label("Model", exact=True)).to_have_value("local/smollm2-135m-instruct")
        await expect(page.locator("#model-note")).to_be_hidden()
        await page.get_by_label("Model", exact=True).select_option("openai/gpt-4o-mini")
        await expect(page.locator("#model-note")).to_contain_text("set OPENAI_API_KEY")

    async def test_an_example_fills_the_prompt(self, server: ScriptedServer, page: Page) -> None:
        await page.goto(server.url)
        await page.get_by_role("button", name="Explain to a child").click()
        await expect(page.get_by_label("Your prompt")).to_have_value("Explain to a child why the sea is salty.")
        await expect(page.get_by_label("Your prompt")).to_be_focused()

    async def test_a_long_prompt_fits_into_the_metadata(self, server: ScriptedServer, page: Page) -> None:
        await ask(page, server, "😀" * 600)
        (sent,) = [json.loads(seen.body) for seen in server.seen if seen.method == "POST"]
        assert (len(sent["prompt"]), sent["metadata"]["prompt"]) == (600, "😀" * 480 + "…")


class TestAnswer:
    async def test_reasoning_is_folded_and_tool_calls_are_shown(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        job.say("I think.", kind="reasoning")
        await expect(status(page)).to_have_text("Thinking")
        await expect(page.locator("#reasoning")).to_be_hidden()
        await page.get_by_text("Reasoning", exact=True).click()
        await expect(page.locator("#reasoning")).to_have_text("I think.")
        job.add("1-2", "tool_call", index=0, id="call_a", name="look", arguments='{"at":')
        job.add("1-3", "tool_call", index=0, arguments=' "sea"}')
        job.end(finish_reason="tool_calls")
        await expect(page.locator("#tools")).to_contain_text("Calls look")
        await expect(page.locator("#tools pre")).to_have_text('{\n  "at": "sea"\n}')
        await expect(status(page)).to_have_text("Done: it asks for tools")

    async def test_markdown_grows_block_by_block_to_what_it_is_at_the_end(self, server: ScriptedServer, page: Page) -> None:
        text = GROWING
        job = await ask(page, server)
        job.start()
        for i in range(0, len(text), 3):
            job.say(text[i : i + 3])
            if i % 30 == 0:
                await page.evaluate("new Promise(requestAnimationFrame)")
        await expect(answer(page).locator("td")).to_have_text(["1", "2"])
        grown = await answer(page).inner_html()
        job.end(finish_reason="stop")
        await expect(status(page)).to_have_text("Done")
        await expect(answer(page).locator("a")).to_have_attribute("href", "https://x.example/")
        assert "<h1>Title</h1>" in grown
        assert "<em>words</em>" in grown
        assert await answer(page).locator("li li").inner_text() == "c"
        assert await answer(page).locator("pre code").inner_text() == "x = '<b>'\n"
        assert await page.locator("h1", has_text="Title").count() == 1, "no block is there twice"


class TestTimeline:
    async def test_what_happened_is_told_with_times_and_ids_when_pointed_at(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        job.say("Hello ", "you")
        await expect(timeline(page)).to_have_count(3)
        await page.get_by_role("button", name="Drop the connection").click()
        await expect(timeline(page).filter(has_text="Resumed after 1-2")).to_have_count(1)
        job.start(2, "takeover")
        job.end(finish_reason="stop")
        await expect(status(page)).to_have_text("Done")
        bar = page.get_by_role("group", name="Timeline")
        await bar.locator(".work").first.focus()
        await expect(page.locator("#told")).to_contain_text("attempt 1 on w1 · 2 tokens, 1-1 to 1-2")
        await bar.locator(".mark.bad").focus()
        await expect(page.locator("#told")).to_contain_text("Dropped: cut by the reader · 1-2")
        looks = await bar.locator(".span").evaluate_all("(spans) => spans.map((span) => span.className)")
        assert looks == ["span wait", "span work", "span shut", "span work", "span open", "span shut", "span open"]

    async def test_an_ended_jobs_times_are_those_of_its_record(self, server: ScriptedServer, page: Page) -> None:
        job = server.job()
        job.created_at -= 3600
        job.start()
        job.end(finish_reason="stop")
        await page.goto(f"{server.url}/#{job.id}")
        await expect(timeline(page).last).to_contain_text("+1.0 s")
        await expect(timeline(page).last).to_contain_text("Done")


class TestExperiments:
    async def test_a_second_reader_reads_everything_again_and_compares(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        job.say("Hello ")
        await page.get_by_role("button", name="Open a second reader").click()
        await expect(page.locator("#second-text")).to_have_text("Hello ")
        job.say("again")
        await expect(page.locator("#second-status")).to_have_text("stands at 1-2")
        job.end(finish_reason="stop")
        await expect(page.locator("#second-status")).to_have_text("the same text, letter for letter; lost 0, doubled 0")
        assert server.cursors() == ["0-1", "0-0"]
        await page.get_by_role("button", name="Close the second reader").click()
        await expect(page.locator("#second-reader")).to_be_hidden()

    async def test_reload_goes_on_where_the_job_is(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        job.say("Hello ")
        await expect(answer(page)).to_have_text("Hello ")
        await page.get_by_role("button", name="Reload the page").click()
        await wait_until(lambda: server.cursors() == ["0-1", "1-1"], message="it follows again")
        job.say("again")
        await expect(answer(page)).to_have_text("Hello again")

    async def test_there_is_no_kill_button_unless_the_server_allows_chaos(self, server: ScriptedServer, page: Page) -> None:
        await ask(page, server)
        await expect(page.get_by_role("button", name="Drop the connection")).to_be_visible()
        await expect(page.get_by_role("button", name="Kill the worker")).to_be_hidden()

    async def test_the_kill_button_asks_for_the_worker_of_this_job(self, server: ScriptedServer, page: Page) -> None:
        server.chaos = {"worker": "api-1", "pid": 4711}
        job = await ask(page, server)
        job.start()
        await page.get_by_role("button", name="Kill the worker").click()
        await expect(timeline(page).filter(has_text="SIGKILL to its worker api-1, pid 4711")).to_have_count(1)
        (asked,) = [seen for seen in server.seen if seen.path == "/v1/chaos/kill-worker"]
        assert json.loads(asked.body) == {"job_id": job.id}


class TestRecentJobs:
    async def test_empty_is_said(self, server: ScriptedServer, page: Page) -> None:
        await page.goto(server.url)
        await expect(page.locator("#jobs-words")).to_contain_text("None yet")

    async def test_a_click_replays_a_job(self, server: ScriptedServer, page: Page) -> None:
        old = server.job(prompt="An old question")
        old.start()
        old.say("An old answer")
        old.end(finish_reason="stop")
        await page.goto(server.url)
        entry = page.get_by_role("complementary").get_by_role("link", name="An old question")
        await expect(entry).to_contain_text(re.compile(r"done · \d s ago · 4 tokens"))
        await entry.click()
        await expect(answer(page)).to_have_text("An old answer")
        await expect(page.locator("#asked")).to_have_text("An old question")
        await expect(entry).to_have_attribute("aria-current", "true")

    async def test_an_open_job_is_cancelled_from_the_list(self, server: ScriptedServer, page: Page) -> None:
        job = server.job(prompt="A long one")
        job.start()
        await page.goto(server.url)
        await page.get_by_text("A long one").hover()
        await page.get_by_role("button", name="Cancel").click()
        await expect(page.get_by_role("link", name="A long one")).to_contain_text("stopped")
        assert job.cancel_asked

    async def test_delete_asks_once_more_and_takes_the_job_off_the_page(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server, "Forget me")
        job.start()
        job.end(finish_reason="stop")
        await page.locator("#jobs-list").get_by_text("Forget me").hover()
        await page.get_by_role("button", name="Delete").click()
        assert job.id in server.jobs
        await page.get_by_role("button", name="Sure?").click()
        await expect(page.locator("#jobs-list li")).to_have_count(0)
        await expect(page.locator("#empty")).to_be_visible()
        assert server.jobs == {}


class TestKeys:
    async def test_the_page_asks_for_a_key_keeps_it_in_the_tab_and_sends_it(self, server: ScriptedServer, page: Page) -> None:
        server.key = "le_right"
        await page.goto(server.url)
        await expect(page.get_by_role("heading", name="This server wants an API key")).to_be_visible()
        await expect(page.locator("main").first).to_be_hidden()
        await page.get_by_label("API key").fill("le_wrong")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("This key is not accepted.")).to_be_visible()
        await page.get_by_label("API key").fill("le_right")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()
        kept: list[dict[str, Any]] = await page.evaluate("[{...sessionStorage}, {...localStorage}]")
        assert kept == [{"lastevent-key": "le_right"}, {}]
        assert await page.context.cookies() == []

    async def test_with_a_key_the_stream_is_opened_by_its_token_and_a_reload_needs_no_prompt(
        self, server: ScriptedServer, page: Page
    ) -> None:
        server.key = "le_right"
        await page.goto(server.url)
        await page.get_by_label("API key").fill("le_right")
        await page.keyboard.press("Enter")
        job = await ask(page, server)
        job.start()
        job.say("Hello ")
        await expect(answer(page)).to_have_text("Hello ")
        job.token += 1
        await page.reload()
        await expect(answer(page)).to_have_text("Hello ")
        job.say("again")
        job.end(finish_reason="stop")
        await expect(answer(page)).to_have_text("Hello again")
        streams = [seen for seen in server.seen if seen.path.endswith("/events")]
        assert [seen.query["token"] for seen in streams] == ["0", "1"]
        assert all("authorization" not in seen.headers for seen in streams)
        await expect(figure(page, "Lost, doubled")).to_have_text("0, 0")
