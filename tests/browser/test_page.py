"""The page in a real browser: asking, stopping, and nothing lost on a drop, a reload or a takeover."""

import json

import pytest
from playwright.async_api import Page, expect

from tests.support.page import answer, ask, figure, status, timeline
from tests.support.scripted_sse import ScriptedServer
from tests.support.waiting import wait_until

# Tests ask for the server before the page: fixtures end in reverse, and the server waits for readers that are still there.
pytestmark = pytest.mark.asyncio(loop_scope="session")


class TestAsking:
    async def test_tokens_appear_as_they_come_and_figures_at_the_end(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        await expect(status(page)).to_have_text("Waiting for a worker")
        job.start()
        await expect(status(page)).to_have_text("Waiting for the first token")
        job.say("Hel")
        await expect(answer(page)).to_have_text("Hel")
        await expect(status(page)).to_have_text("Answering")
        await expect(page.locator("#answer")).to_have_attribute("aria-busy", "true")
        job.say("lo\n", "world")
        await expect(answer(page)).to_have_text("Hello\nworld", use_inner_text=True)
        job.end(finish_reason="stop")
        await expect(status(page)).to_have_text("Done")
        await expect(page.locator("#answer")).to_have_attribute("aria-busy", "false")
        await expect(figure(page, "First token")).to_have_text("0.25 s")
        await expect(page.locator("#rate")).to_have_text("26.5")
        await expect(figure(page, "Attempts")).to_have_text("1")
        await expect(figure(page, "Lost, doubled")).to_have_text("0, 0")

    async def test_shift_enter_breaks_the_line_and_enter_sends(self, server: ScriptedServer, page: Page) -> None:
        await page.goto(server.url)
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()
        await page.keyboard.type("one")  # the prompt has the focus
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("two")
        await page.keyboard.press("Enter")
        await expect(page.locator("#asked")).to_have_text("one\ntwo", use_inner_text=True)
        submits = [seen for seen in server.seen if seen.method == "POST"]
        assert [json.loads(seen.body)["prompt"] for seen in submits] == ["one\ntwo"]

    async def test_the_model_chosen_is_the_model_asked(self, server: ScriptedServer, page: Page) -> None:
        await page.goto(server.url)
        await page.get_by_label("Model", exact=True).select_option("openai/gpt-4o-mini")
        await page.get_by_label("Your prompt").fill("Hi")
        await page.get_by_role("button", name="Send").click()
        await expect(page.locator("#job")).to_be_visible()
        assert [job.model for job in server.jobs.values()] == ["openai/gpt-4o-mini"]

    async def test_a_refused_request_says_which_field(self, server: ScriptedServer, page: Page) -> None:
        server.problem = {"status": 400, "title": "Bad", "errors": [{"field": "model", "message": "is not here"}]}
        await page.goto(server.url)
        await page.get_by_label("Your prompt").fill("Hi")
        await page.get_by_role("button", name="Send").click()
        await expect(page.get_by_role("alert")).to_have_text("model: is not here")
        await expect(page.get_by_role("button", name="Send")).to_be_enabled()
        await expect(page.get_by_label("Your prompt")).to_have_value("Hi")

    async def test_new_leaves_the_job_and_back_returns_to_it(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        job.say("Hello")
        await page.get_by_role("button", name="New").click()
        await expect(page.locator("#empty")).to_be_visible()
        await expect(page.get_by_label("Your prompt")).to_be_focused()
        await wait_until(lambda: not job.connections, message="the reader has left")
        await page.go_back()
        await expect(answer(page)).to_have_text("Hello")
        assert not job.cancel_asked


class TestStopping:
    @pytest.mark.parametrize("how", ["button", "Escape"])
    async def test_stops_the_job_and_keeps_what_came(self, server: ScriptedServer, page: Page, how: str) -> None:
        job = await ask(page, server)
        job.start()
        job.say("Half an answ")
        await expect(answer(page)).to_have_text("Half an answ")
        if how == "button":
            await page.get_by_role("button", name="Stop").click()
        else:
            await page.keyboard.press("Escape")
        await expect(status(page)).to_have_text("Stopped. What came is kept.")
        await expect(answer(page)).to_have_text("Half an answ")
        await expect(page.get_by_role("button", name="Stop")).to_be_hidden()
        assert job.cancel_asked


class TestComingBack:
    async def test_a_dropped_connection_is_resumed_from_the_cursor(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        job.say("Hello ")
        await expect(answer(page)).to_have_text("Hello ")
        await page.get_by_role("button", name="Drop the connection").click()
        await expect(status(page)).to_have_text("Connection lost, resuming from 1-1")
        job.say("again")
        await expect(answer(page)).to_have_text("Hello again")
        job.end(finish_reason="stop")
        await expect(status(page)).to_have_text("Done")
        await expect(timeline(page).filter(has_text="Resumed after 1-1")).to_have_count(1)
        await expect(figure(page, "Lost, doubled")).to_have_text("0, 0")
        assert server.cursors() == ["0-1", "1-1"]

    async def test_a_broken_connection_is_resumed_by_the_browser_itself(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        job.say("Hello ")
        await expect(answer(page)).to_have_text("Hello ")
        job.cut()
        job.say("again")
        job.end(finish_reason="stop")
        await expect(answer(page)).to_have_text("Hello again")
        await expect(timeline(page).filter(has_text="Dropped: the connection broke")).to_have_count(1)
        streams = [seen for seen in server.seen if seen.path.endswith("/events")]
        assert streams[-1].headers["last-event-id"] == "1-1"
        await expect(figure(page, "Lost, doubled")).to_have_text("0, 0")

    async def test_a_reload_goes_on_where_the_job_is(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server, "Tell me.")
        job.start()
        job.say("Hello ")
        await page.reload()
        await expect(answer(page)).to_have_text("Hello ")
        await expect(page.locator("#asked")).to_have_text("Tell me.")
        await wait_until(lambda: bool(job.connections), message="it follows again")
        assert server.cursors()[-1] == "1-1"
        job.say("again")
        job.end(finish_reason="stop")
        await expect(answer(page)).to_have_text("Hello again")
        await expect(status(page)).to_have_text("Done")
        await expect(figure(page, "Attempts")).to_have_text("1")

    async def test_an_ended_job_is_replayed_from_its_first_event(self, server: ScriptedServer, page: Page) -> None:
        job = server.job()
        job.start()
        job.say("All of it")
        job.end("error", code="timeout", message="nothing for 60 s", retryable=True, partial=True)
        await page.goto(f"{server.url}/#{job.id}")
        await expect(answer(page)).to_have_text("All of it")
        await expect(status(page)).to_have_text("Failed (timeout): nothing for 60 s")
        await expect(figure(page, "Lost, doubled")).to_have_text("0, 0")
        assert server.cursors() == ["0-0"]

    async def test_an_unknown_job_is_said_to_be_one(self, server: ScriptedServer, page: Page) -> None:
        await page.goto(f"{server.url}/#job_none")
        await expect(page.get_by_role("alert")).to_have_text("no job job_none")
        await expect(page.locator("#empty")).to_be_visible()

    async def test_a_takeover_goes_on_and_a_reset_starts_over(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        job.say("wrong")
        await expect(answer(page)).to_have_text("wrong")
        job.start(2, "retry", reset=True)
        job.say("right")
        await expect(answer(page)).to_have_text("right")
        job.start(3, "takeover")
        job.say(" on")
        await expect(answer(page)).to_have_text("right on")
        await expect(timeline(page).filter(has_text="Taken over: its worker was lost (attempt 3")).to_have_count(1)
        await expect(figure(page, "Attempts")).to_have_text("3")

    async def test_offline_is_said_and_passes(self, server: ScriptedServer, page: Page) -> None:
        job = await ask(page, server)
        job.start()
        await page.context.set_offline(True)
        await expect(page.get_by_role("alert")).to_contain_text("You are offline")
        job.cut()
        job.say("Hello")
        await page.context.set_offline(False)
        await expect(page.get_by_role("alert")).to_be_hidden()
        await expect(answer(page)).to_have_text("Hello")
