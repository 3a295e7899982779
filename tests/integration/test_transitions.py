"""shared.job.TRANSITIONS against the scripts: what the table lists happens, what it does not list is refused."""

import contextlib
from typing import get_args

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.errors import LogRefused
from shared.event_log import EventLog
from shared.events import AnyEvent, Cancelled, Error, Reasoning, Refusal, Terminal, Timing, Token, ToolCall, Usage
from shared.job import TERMINAL, TRANSITIONS, Status
from shared.job_store import JobStore
from tests.integration.conftest import NewAuthor
from tests.support.author import DONE, MODEL, Author, append, end, lease, ownership

CONTENT: dict[str, AnyEvent] = {
    "token": Token("a"),
    "reasoning": Reasoning("a"),
    "refusal": Refusal("a"),
    "tool_call": ToolCall(0, id="c"),
}
ENDS: dict[str, Terminal] = {
    "done": DONE,
    "error": Error("timeout", "late", True, False, Usage(), Timing()),
    "cancelled": Cancelled("user", False, Usage(), Timing()),
}
EVENTS = ["started", *CONTENT, *ENDS]
CASES = [(status, event) for status in get_args(Status) for event in EVENTS]

_END_OF: dict[Status, str] = {"done": "done", "failed": "error", "cancelled": "cancelled"}


async def bring_to(status: Status, author: Author) -> None:
    if status != "queued":
        await author.claim()
    if status in TERMINAL:
        await author.end(ENDS[_END_OF[status]])


async def offer(redis: Redis, log: EventLog, author: Author, event: str) -> None:
    """By whoever may try: the job's owner, and whoever holds its lease."""
    owner = author.owner or ownership(author.job_id, token="nobody's")
    seq = author.last.seq + 1 if author.owner else 1
    if event == "started":
        given = await lease(redis, author.job_id)
        await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]
        await log.claim(given, "w2", MODEL.id, author.last, reset=False)
    elif event in CONTENT:
        await append(redis, owner, seq, CONTENT[event])
    elif event == "done":
        await end(redis, owner, seq, ENDS[event])
    else:
        await log.close(author.job_id, ENDS[event], MODEL.id, "w9")


@pytest.mark.parametrize(("status", "event"), CASES)
async def test_the_scripts_keep_the_table(
    redis: Redis, event_log: EventLog, job_store: JobStore, new_queued: NewAuthor, status: Status, event: str
) -> None:
    author = await new_queued()
    await bring_to(status, author)
    before = await event_log.read(author.job_id)
    with contextlib.suppress(LogRefused):
        await offer(redis, event_log, author, event)
    entries = await event_log.read(author.job_id)
    assert entries[: len(before)] == before
    assert (len(entries) > len(before)) == ((status, event) in TRANSITIONS)
    assert (await job_store.record(author.job_id)).status == TRANSITIONS.get((status, event), status)


def test_the_cases_cover_the_whole_table() -> None:
    assert set(TRANSITIONS) <= set(CASES)
