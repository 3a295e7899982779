"""lastevent.js by itself in a real browser: each rule of protocol 4 that the page does not come across."""

from typing import Any

import pytest
from playwright.async_api import Page

from tests.support.scripted_sse import Answer, ScriptedJob, ScriptedServer, frame

# Tests ask for the server before the page: fixtures end in reverse, and the server waits for readers that are still there.
pytestmark = pytest.mark.asyncio(loop_scope="session")


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


async def follow(page: Page, server: ScriptedServer, job_id: str, **options: Any) -> dict[str, Any]:
    await page.goto(f"{server.url}/favicon.svg")  # the origin, without the page's own reader
    outcome: dict[str, Any] = await page.evaluate(FOLLOW, [job_id, options])
    return outcome


def told_in_full(server: ScriptedServer) -> ScriptedJob:
    job = server.job()
    job.start()
    job.say("Hel", "lo")
    job.end(finish_reason="stop")
    return job


def frames(job: ScriptedJob, first: int, last: int) -> list[bytes]:
    return [frame(data, event_id) for event_id, data in job.log[first:last]]


def assert_told_exactly_once(got: dict[str, Any]) -> None:
    assert (got["last"], got["text"], got["outcome"], got["cursor"]) == ("end", "Hello", "done", "1-3")
    assert (got["lost"], got["doubled"]) == (0, 0)


async def test_a_rewind_discards_everything(server: ScriptedServer, page: Page) -> None:
    got = await follow(page, server, told_in_full(server).id, cursor="7-7")
    assert_told_exactly_once(got)
    assert got["said"][:2] == ["rewind", "queued"]


async def test_past_the_end_it_ends(server: ScriptedServer, page: Page) -> None:
    got = await follow(page, server, told_in_full(server).id, cursor="1-3")
    assert (got["last"], got["outcome"], got["said"]) == ("end", "done", [])


async def test_a_start_after_something_else_reads_again_from_the_first_event(server: ScriptedServer, page: Page) -> None:
    job = server.job()
    job.start()
    job.say("Hel")
    job.start(2, "takeover")
    job.say("lo")
    job.end(finish_reason="stop")
    outran = frame({"type": "token", "text": "never kept"}, "1-2")
    job.answers.append(Answer([*frames(job, 0, 3), outran, *frames(job, 3, 5)], then="hold"))
    got = await follow(page, server, job.id)
    assert (got["text"], got["cursor"], got["lost"], got["doubled"]) == ("Hello", "2-2", 0, 0)
    assert server.cursors() == [None, None]


async def test_reconnect_comes_back_with_the_cursor(server: ScriptedServer, page: Page) -> None:
    job = told_in_full(server)
    away = frame({"type": "reconnect", "reason": "draining"})
    job.answers.append(Answer([b"retry: 10\n\n", *frames(job, 0, 3), away]))
    assert_told_exactly_once(await follow(page, server, job.id))
    assert server.cursors() == [None, "1-1"]


async def test_a_status_that_passes_by_itself_is_no_end(server: ScriptedServer, page: Page) -> None:
    job = told_in_full(server)
    job.answers.append(Answer([b"busy"], 503, "text/plain"))
    got = await follow(page, server, job.id)
    assert_told_exactly_once(got)
    assert got["said"][:2] == ["dropped", "resumed"]


async def test_an_unknown_job_is_gone(server: ScriptedServer, page: Page) -> None:
    got = await follow(page, server, "job_none")
    assert got["last"] == "gone: no job job_none"


async def test_a_silent_socket_is_taken_for_dead(server: ScriptedServer, page: Page) -> None:
    job = told_in_full(server)
    job.answers.append(Answer([*frames(job, 0, 3), frame({"type": "heartbeat"})], then="hold"))
    assert_told_exactly_once(await follow(page, server, job.id, silenceMs=300))
    assert [seen.query["heartbeat"] for seen in server.seen if seen.path.endswith("/events")] == ["event", "event"]
    assert server.cursors() == [None, "1-1"]


async def test_holes_and_doubles_are_counted(server: ScriptedServer, page: Page) -> None:
    job = server.job()
    job.start()
    job.say("a", "b", "c", "d")
    job.end(finish_reason="stop")
    merged = frame({"type": "token", "text": "ab", "n": 2}, "1-2")
    job.answers.append(Answer([*frames(job, 0, 2), merged, *frames(job, 2, 4), *frames(job, 5, 7)]))
    got = await follow(page, server, job.id)
    assert (got["text"], got["lost"], got["doubled"]) == ("abd", 1, 2)


async def test_tool_calls_are_joined(server: ScriptedServer, page: Page) -> None:
    job = server.job()
    job.start()
    job.add("1-1", "tool_call", index=0, id="call_a", name="look", arguments="{")
    job.add("1-2", "tool_call", index=0, arguments="}")
    job.end(finish_reason="tool_calls")
    got = await follow(page, server, job.id)
    assert got["toolCalls"] == [{"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}}]


async def test_a_token_that_has_expired_is_replaced_by_asking_for_the_job_again(server: ScriptedServer, page: Page) -> None:
    server.key = "le_right"
    job = told_in_full(server)
    stale = job.snapshot()
    job.token += 1
    got = await follow(page, server, job.id, job=stale, cursor="0-0", key="le_right")
    assert_told_exactly_once(got)
    assert [seen.query["token"] for seen in server.seen if seen.path.endswith("/events")] == ["0", "1"]


async def test_without_a_key_where_one_is_wanted_the_job_is_gone(server: ScriptedServer, page: Page) -> None:
    server.key = "le_right"
    got = await follow(page, server, told_in_full(server).id)
    assert got["last"] == "gone: a key is wanted"
