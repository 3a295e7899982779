"""`lastevent watch ID`: another's job in this terminal, from any event on."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from functools import partial

import pytest

from cli.options import SOME_ID, job_id
from cli.reader import JobReader
from cli.watch import run_watch
from shared.errors import ConfigurationError
from tests.support.scripted_sse import ScriptedJob, ScriptedServer, scripted_server
from tests.support.terminal import Streams
from tests.support.waiting import wait_until


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def ended(server: ScriptedServer) -> ScriptedJob:
    job = server.job()
    job.start()
    job.say("Hello ", "wörld", "!")
    job.end(finish_reason="stop")
    return job


async def watch(server: ScriptedServer, job: ScriptedJob, streams: Streams, *, as_json: bool = False, **options: str) -> int:
    return await run_watch(server.url, job.id, streams.output(as_json=as_json), **options)


async def test_an_ended_job_is_replayed_with_its_figures(server: ScriptedServer, ended: ScriptedJob) -> None:
    streams = Streams(terminal=False)
    assert await watch(server, ended, streams) == 0
    assert streams.stdout == "Hello wörld!\n"
    assert streams.stderr == "TTFT 0.25 s · 26.5 tokens/s · 4 tokens · 1 attempt\n"


async def test_from_an_event_on_only_the_rest_is_shown_and_the_figures_are_the_whole_jobs(
    server: ScriptedServer, ended: ScriptedJob
) -> None:
    streams = Streams(terminal=False)
    assert await watch(server, ended, streams, cursor="1-1") == 0
    assert streams.stdout == "wörld!\n"
    assert streams.stderr.endswith("4 tokens · 1 attempt\n")


async def test_from_its_last_event_on_there_is_nothing_left_but_the_figures(server: ScriptedServer, ended: ScriptedJob) -> None:
    streams = Streams(terminal=False)
    assert await watch(server, ended, streams, cursor=ended.log[-1][0]) == 0
    assert streams.stdout == ""
    assert streams.stderr.endswith("4 tokens · 1 attempt\n")


async def test_a_running_job_is_followed_live(server: ScriptedServer) -> None:
    job, streams = server.job(), Streams(terminal=True)
    job.start()
    job.say("Hello ")
    watching = asyncio.ensure_future(watch(server, job, streams))
    await wait_until(lambda: "Hello" in streams.stdout, message="the replay")
    job.say("wörld!")
    job.end("error", code="timeout", message="nothing for 60 s", retryable=True, partial=True)
    assert await watching == 1
    assert "Hello wörld!" in streams.screen()
    assert "error/timeout: nothing for 60 s; what came before it is kept" in streams.stdout


async def test_json_is_the_job_once_it_has_ended(server: ScriptedServer, ended: ScriptedJob) -> None:
    streams = Streams(terminal=False)
    assert await watch(server, ended, streams, as_json=True) == 0
    assert json.loads(streams.stdout)["text"] == "Hello wörld!"


async def test_a_cancelled_job_is_130_as_if_one_had_cancelled_it_oneself(server: ScriptedServer) -> None:
    job, streams = server.job(), Streams(terminal=False)
    job.end("cancelled", reason="user", partial=False)
    assert await watch(server, job, streams) == 130
    assert "cancelled" in streams.stderr


async def test_ctrl_c_leaves_the_job_alone_and_says_how_to_come_back(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LASTEVENT_URL", server.url)
    job, streams = server.job(), Streams(terminal=False)
    job.start()
    job.say("Hello ", "wörld")
    watching = asyncio.ensure_future(watch(server, job, streams))
    await wait_until(lambda: "wörld" in streams.stdout, message="what there is of it")
    os.kill(os.getpid(), signal.SIGINT)
    assert await watching == 130
    assert streams.stdout == "Hello wörld\n"
    assert streams.stderr == f"the job goes on; come back with: lastevent watch {job.id} --from 1-2\n"
    assert not job.cancel_asked


async def test_a_server_that_was_named_is_named_again(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LASTEVENT_URL", raising=False)
    job, streams = server.job(), Streams(terminal=False)
    job.start()
    watching = asyncio.ensure_future(watch(server, job, streams))
    await wait_until(lambda: bool(job.connections), message="the stream")
    os.kill(os.getpid(), signal.SIGINT)
    assert await watching == 130
    assert streams.stderr.endswith(f" --url {server.url}\n")


async def test_a_cancel_from_elsewhere_is_not_swallowed(server: ScriptedServer) -> None:
    job = server.job()
    watching = asyncio.ensure_future(watch(server, job, Streams(terminal=False)))
    await wait_until(lambda: bool(job.connections), message="the stream")
    watching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await watching


async def test_an_unknown_job_is_one_line(server: ScriptedServer) -> None:
    streams = Streams(terminal=False)
    assert await run_watch(server.url, "job_x", streams.output()) == 2
    assert streams.stderr == "lastevent: no job job_x\n"


async def test_where_nothing_answers_it_says_so_at_once_and_how_to_begin() -> None:
    async with scripted_server() as gone:
        pass
    streams = Streams(terminal=False)
    assert await run_watch(gone.url, SOME_ID, streams.output()) == 2
    assert streams.stderr == f"lastevent: nothing answers at {gone.url}: start it with `lastevent up`\n"


async def test_a_wrong_key_is_one_line(server: ScriptedServer, ended: ScriptedJob, monkeypatch: pytest.MonkeyPatch) -> None:
    server.key = "le_right"
    monkeypatch.setenv("LASTEVENT_API_KEY", "le_wrong")
    streams = Streams(terminal=False)
    assert await watch(server, ended, streams) == 2
    assert streams.stderr == "lastevent: a key is wanted\n"


async def test_a_connection_that_is_lost_in_mid_stream_is_taken_up_again(server: ScriptedServer) -> None:
    job, streams = server.job(), Streams(terminal=False)
    job.start()
    job.say("Hello ")
    watching = asyncio.ensure_future(watch(server, job, streams))
    await wait_until(lambda: "Hello" in streams.stdout, message="the first words")
    job.cut()
    await wait_until(lambda: len(server.cursors()) == 2, message="the next connection")
    job.say("wörld!")
    job.end(finish_reason="stop")
    assert await watching == 0
    assert streams.stdout == "Hello wörld!\n"
    assert streams.stderr.startswith("connection lost, resuming from 1-1\n")
    assert server.cursors() == [None, "1-1"]


async def test_a_server_that_stays_away_is_given_up_with_how_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.watch.JobReader", partial(JobReader, give_up_after_s=0.2))
    streams = Streams(terminal=False, width=200)
    async with scripted_server() as server:
        job = server.job()
        job.start()
        job.say("Hello ")
        watching = asyncio.ensure_future(watch(server, job, streams))
        await wait_until(lambda: "Hello" in streams.stdout, message="the first words")
    assert await watching == 2
    line = streams.stderr.splitlines()[-1]
    assert line.startswith(f"lastevent: nothing came from {server.url}/v1/jobs/{job.id}/events for 0.2 s: ")
    assert line.endswith(f"come back with: lastevent watch {job.id} --from 1-1 --url {server.url}")


@pytest.mark.parametrize("text", ["", "..", "a/b", "JOB_7K3UHLZSYQ4WVM5DNTXGABC2EF", f"{SOME_ID} "])
def test_what_cannot_be_an_id_is_asked_of_nobody(text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^'{re.escape(text)}' is no job's id: those are as {SOME_ID}"):
        job_id(text)
