"""The page and lastevent.js in a real browser: nothing is lost on a drop, a reload or a takeover, and no output is markup."""

import json
import re
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from tests.support.scripted_sse import Answer, ScriptedJob, ScriptedServer, frame
from tests.support.waiting import wait_until

# Tests ask for the server before the page: fixtures end in reverse, and the server waits for readers that are still there.
pytestmark = pytest.mark.asyncio(loop_scope="session")


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
    return page.get_by_role("status")


def timeline(page: Page) -> Locator:
    return page.locator("#timeline li")


def figure(page: Page, name: str) -> Locator:
    return page.locator("dl div", has_text=name).locator("dd")


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
        await expect(figure(page, "Tokens/s")).to_have_text("26.5")
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
        await page.get_by_label("Model").select_option("openai/gpt-4o-mini")
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
        assert server.seen[-1].headers["last-event-id"] == "1-1"
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

    async def test_an_ended_job_is_shown_without_a_stream(self, server: ScriptedServer, page: Page) -> None:
        job = server.job()
        job.start()
        job.say("All of it")
        job.end("error", code="timeout", message="nothing for 60 s", retryable=True, partial=True)
        await page.goto(f"{server.url}/#{job.id}")
        await expect(answer(page)).to_have_text("All of it")
        await expect(status(page)).to_have_text("Failed (timeout): nothing for 60 s")
        assert server.cursors() == []

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


class TestReader:
    """lastevent.js by itself, each rule of protocol 4 that the page does not come across."""

    FOLLOW = """
        async ([id, options]) => {
            const { JobReader } = await import("/lastevent.js");
            const reader = new JobReader(id, options);
            const said = [];
            for (const type of ["frame", "dropped", "resumed"]) {
                reader.addEventListener(type, ({ detail }) => said.push(type === "frame" ? detail.type : type));
            }
            const last = await new Promise((resolve) => {
                reader.addEventListener("end", () => resolve("end"));
                reader.addEventListener("gone", ({ detail }) => resolve(`gone: ${detail.message}`));
            });
            const { text, cursor, outcome, toolCalls, lost, doubled, connections } = reader;
            return { last, said, text, cursor, outcome, toolCalls, lost, doubled, connections };
        }
    """

    async def follow(self, page: Page, server: ScriptedServer, job_id: str, **options: Any) -> dict[str, Any]:
        await page.goto(f"{server.url}/favicon.svg")  # the origin, without the page's own reader
        outcome: dict[str, Any] = await page.evaluate(self.FOLLOW, [job_id, options])
        return outcome

    def told_in_full(self, server: ScriptedServer) -> ScriptedJob:
        job = server.job()
        job.start()
        job.say("Hel", "lo")
        job.end(finish_reason="stop")
        return job

    def frames(self, job: ScriptedJob, first: int, last: int) -> list[bytes]:
        return [frame(data, event_id) for event_id, data in job.log[first:last]]

    def assert_told_exactly_once(self, got: dict[str, Any]) -> None:
        assert (got["last"], got["text"], got["outcome"], got["cursor"]) == ("end", "Hello", "done", "1-3")
        assert (got["lost"], got["doubled"]) == (0, 0)

    async def test_a_rewind_discards_everything(self, server: ScriptedServer, page: Page) -> None:
        got = await self.follow(page, server, self.told_in_full(server).id, cursor="7-7")
        self.assert_told_exactly_once(got)
        assert got["said"][:2] == ["rewind", "queued"]

    async def test_past_the_end_it_ends(self, server: ScriptedServer, page: Page) -> None:
        got = await self.follow(page, server, self.told_in_full(server).id, cursor="1-3")
        assert (got["last"], got["outcome"], got["said"]) == ("end", "done", [])

    async def test_a_start_after_something_else_reads_again_from_the_first_event(
        self, server: ScriptedServer, page: Page
    ) -> None:
        job = server.job()
        job.start()
        job.say("Hel")
        job.start(2, "takeover")
        job.say("lo")
        job.end(finish_reason="stop")
        outran = frame({"type": "token", "text": "never kept"}, "1-2")
        job.answers.append(Answer([*self.frames(job, 0, 3), outran, *self.frames(job, 3, 5)], then="hold"))
        got = await self.follow(page, server, job.id)
        assert (got["text"], got["cursor"], got["lost"], got["doubled"]) == ("Hello", "2-2", 0, 0)
        assert server.cursors() == [None, None]

    async def test_reconnect_comes_back_with_the_cursor(self, server: ScriptedServer, page: Page) -> None:
        job = self.told_in_full(server)
        away = frame({"type": "reconnect", "reason": "draining"})
        job.answers.append(Answer([b"retry: 10\n\n", *self.frames(job, 0, 3), away]))
        self.assert_told_exactly_once(await self.follow(page, server, job.id))
        assert server.cursors() == [None, "1-1"]

    async def test_a_status_that_passes_by_itself_is_no_end(self, server: ScriptedServer, page: Page) -> None:
        job = self.told_in_full(server)
        job.answers.append(Answer([b"busy"], 503, "text/plain"))
        got = await self.follow(page, server, job.id)
        self.assert_told_exactly_once(got)
        assert got["said"][:2] == ["dropped", "resumed"]

    async def test_an_unknown_job_is_gone(self, server: ScriptedServer, page: Page) -> None:
        got = await self.follow(page, server, "job_none")
        assert got["last"] == "gone: no job job_none"

    async def test_a_silent_socket_is_taken_for_dead(self, server: ScriptedServer, page: Page) -> None:
        job = self.told_in_full(server)
        job.answers.append(Answer([*self.frames(job, 0, 3), frame({"type": "heartbeat"})], then="hold"))
        self.assert_told_exactly_once(await self.follow(page, server, job.id, silenceMs=300))
        assert [seen.query["heartbeat"] for seen in server.seen if seen.path.endswith("/events")] == ["event", "event"]
        assert server.cursors() == [None, "1-1"]

    async def test_holes_and_doubles_are_counted(self, server: ScriptedServer, page: Page) -> None:
        job = server.job()
        job.start()
        job.say("a", "b", "c", "d")
        job.end(finish_reason="stop")
        merged = frame({"type": "token", "text": "ab", "n": 2}, "1-2")
        job.answers.append(Answer([*self.frames(job, 0, 2), merged, *self.frames(job, 2, 4), *self.frames(job, 5, 7)]))
        got = await self.follow(page, server, job.id)
        assert (got["text"], got["lost"], got["doubled"]) == ("abd", 1, 2)

    async def test_tool_calls_are_joined(self, server: ScriptedServer, page: Page) -> None:
        job = server.job()
        job.start()
        job.add("1-1", "tool_call", index=0, id="call_a", name="look", arguments="{")
        job.add("1-2", "tool_call", index=0, arguments="}")
        job.end(finish_reason="tool_calls")
        got = await self.follow(page, server, job.id)
        assert got["toolCalls"] == [{"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}}]


class TestSafety:
    async def test_what_a_model_says_is_never_markup(self, server: ScriptedServer, page: Page) -> None:
        hostile = '<img src=x onerror="document.title=1"><script>document.title=1</script></span><h1>x</h1>&amp;'
        job = await ask(page, server, hostile)
        job.start(1, hostile)
        job.say(hostile)
        job.end("error", code="internal", message=hostile, retryable=False, partial=True)
        await expect(status(page)).to_contain_text("Failed (internal): <img")
        await expect(answer(page)).to_have_text(hostile)
        assert await page.locator("h1, main img, main script").count() == 0
        assert await page.title() == "Lastevent"


class TestLooks:
    @pytest.mark.parametrize("scheme", ["light", "dark"])
    async def test_nothing_overflows_at_320_px(self, server: ScriptedServer, page: Page, scheme: Any) -> None:
        await page.emulate_media(color_scheme=scheme)
        await page.set_viewport_size({"width": 320, "height": 700})
        server.models = ["local/" + "a-very-long-model-name-" * 6]
        job = await ask(page, server, "w" * 200)
        job.start()
        job.say("unbroken" * 40, "\n", "    code  with   spaces " * 8)
        await expect(answer(page)).to_contain_text("code")
        width, ground = await page.evaluate(
            "[document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]"
        )
        assert width == 320
        assert ground == {"light": "rgb(246, 247, 246)", "dark": "rgb(16, 22, 21)"}[scheme]
