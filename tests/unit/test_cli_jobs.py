"""`lastevent jobs`: a table for a person, columns for a pipe, one document for a program."""

import json
from collections.abc import AsyncIterator

import pytest

from cli.jobs import run_jobs
from tests.support.scripted_sse import ScriptedServer, scripted_server
from tests.support.terminal import Streams


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """With a job that is done, one that failed and one that runs, in this order."""
    async with scripted_server() as server:
        done = server.job()
        done.start()
        done.say("Once upon\n", "a time,\tthere was [red] a \x1b[2J lighthouse keeper who counted ships.")
        done.end(finish_reason="stop")
        failed = server.job("openai/gpt-4o-mini")
        failed.end("error", code="auth", message="The key was refused.", retryable=False, partial=False)
        running = server.job("openai/gpt-4o-mini")
        running.start()
        running.created_at -= 3 * 60
        yield server


async def listed(server: ScriptedServer, streams: Streams, *, as_json: bool = False, limit: int = 20, **query: str) -> str:
    assert await run_jobs(server.url, streams.output(as_json=as_json), limit=limit, status=query.get("status")) == 0
    return streams.stdout


async def test_a_pipe_gets_a_line_each_newest_first_and_nothing_is_cut(server: ScriptedServer) -> None:
    lines = [line.split("\t") for line in (await listed(server, Streams(terminal=False))).splitlines()]
    ids = list(server.jobs)
    assert lines == [
        [ids[2], "running", "3 min", "0", "openai/gpt-4o-mini", ""],
        [ids[1], "failed", "0 s", "4", "openai/gpt-4o-mini", "error/auth: The key was refused."],
        [
            *(ids[0], "done", "0 s", "4", "local/smollm2-135m-instruct"),
            "Once upon a time, there was [red] a \ufffd[2J lighthouse keeper who counted ships.",
        ],
    ]


@pytest.mark.parametrize("width", [80, 160])
async def test_a_terminal_gets_a_table_in_which_ids_are_whole(server: ScriptedServer, width: int) -> None:
    table = await listed(server, Streams(terminal=True, width=width))
    head, *rows = table.splitlines()
    assert head.split()[:5] == ["id", "state", "age", "tokens", "model"]
    assert [row.split()[0] for row in rows] == list(reversed(server.jobs))
    assert max(map(len, rows)) <= width
    assert "\x1b[2J" not in table
    assert ("a time, there was [red]" in table) == (width == 160)


async def test_json_is_the_jobs_as_the_server_has_them(server: ScriptedServer) -> None:
    jobs = json.loads(await listed(server, Streams(terminal=False), as_json=True))
    assert [job["id"] for job in jobs] == list(reversed(server.jobs))
    assert "\x1b[2J" in jobs[-1]["text"]


async def test_only_one_status(server: ScriptedServer) -> None:
    lines = (await listed(server, Streams(terminal=False), status="failed")).splitlines()
    assert [line.split("\t")[1] for line in lines] == ["failed"]


async def test_a_limit_above_a_page_asks_for_pages(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.jobs.PAGE", 2)
    assert len((await listed(server, Streams(terminal=False), limit=3)).splitlines()) == 3
    pages = [seen.query for seen in server.seen]
    assert pages == [{"limit": "2"}, {"limit": "1", "after": list(server.jobs)[1]}]


async def test_no_jobs_say_what_to_try_and_a_pipe_gets_nothing(server: ScriptedServer) -> None:
    server.jobs.clear()
    assert 'no jobs yet; try: lastevent ask "' in await listed(server, Streams(terminal=True, width=100))
    assert await listed(server, Streams(terminal=True, width=100), status="queued") == "no job is queued\n"
    assert await listed(server, Streams(terminal=False)) == ""
    assert json.loads(await listed(server, Streams(terminal=False), as_json=True)) == []


async def test_nobody_there_is_one_line() -> None:
    async with scripted_server() as gone:
        pass
    streams = Streams(terminal=False)
    assert await run_jobs(gone.url, streams.output(), limit=20, status=None) == 2
    assert streams.stderr == f"lastevent: nothing answers at {gone.url}: start it with `lastevent up`\n"
