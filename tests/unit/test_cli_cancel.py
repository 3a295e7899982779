"""`lastevent cancel` and `lastevent delete`: they tell what became of the job, not what was asked for."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator

import pytest

from cli.cancel import run_cancel, run_delete
from tests.support.scripted_sse import ScriptedJob, ScriptedServer, scripted_server
from tests.support.terminal import Streams
from tests.support.waiting import wait_until


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def running(server: ScriptedServer) -> ScriptedJob:
    job = server.job()
    job.start()
    job.say("Hello ")
    return job


async def cancelled(server: ScriptedServer, job: ScriptedJob, *, as_json: bool = False) -> str:
    streams = Streams(terminal=False)
    assert await run_cancel(server.url, job.id, streams.output(as_json=as_json)) == 0
    return streams.stdout


async def test_a_cancelled_job_is_called_so_with_its_tokens(server: ScriptedServer, running: ScriptedJob) -> None:
    assert await cancelled(server, running) == f"{running.id} is cancelled, after 4 tokens\n"


async def test_one_whose_worker_is_still_to_stop_is_waited_for(server: ScriptedServer, running: ScriptedJob) -> None:
    server.on_cancel = lambda job: None
    cancelling = asyncio.ensure_future(cancelled(server, running, as_json=True))
    await wait_until(lambda: bool(running.connections), message="it waits for the end")
    running.end("cancelled", reason="user", partial=True)
    assert json.loads(await cancelling)["status"] == "cancelled"


async def test_a_done_that_wins_is_the_truth(server: ScriptedServer, running: ScriptedJob) -> None:
    server.on_cancel = lambda job: job.end(finish_reason="stop")
    assert await cancelled(server, running) == f"{running.id} ended before the cancel reached it: done, 4 tokens\n"


async def test_a_job_that_had_ended_is_left_as_it_is(server: ScriptedServer, running: ScriptedJob) -> None:
    running.end(finish_reason="stop")
    assert await cancelled(server, running) == f"{running.id} had ended before: done, 4 tokens\n"
    assert not running.cancel_asked


async def test_ctrl_c_does_not_wait_for_the_end(server: ScriptedServer, running: ScriptedJob) -> None:
    server.on_cancel = lambda job: None
    streams = Streams(terminal=False)
    cancelling = asyncio.ensure_future(run_cancel(server.url, running.id, streams.output()))
    await wait_until(lambda: bool(running.connections), message="it waits for the end")
    os.kill(os.getpid(), signal.SIGINT)
    assert await cancelling == 130
    assert streams.stderr == "the job was asked to stop; its end was not waited for\n"


async def test_an_unknown_job_is_one_line(server: ScriptedServer) -> None:
    for run in (run_cancel, run_delete):
        streams = Streams(terminal=False)
        assert await run(server.url, "job_x", streams.output()) == 2
        assert streams.stderr == "lastevent: no job job_x\n"


async def test_delete_erases_it(server: ScriptedServer, running: ScriptedJob) -> None:
    streams = Streams(terminal=False)
    assert await run_delete(server.url, running.id, streams.output()) == 0
    assert streams.stdout == f"{running.id} is deleted, with all its text\n"
    assert server.jobs == {}


async def test_delete_as_json(server: ScriptedServer, running: ScriptedJob) -> None:
    streams = Streams(terminal=False)
    assert await run_delete(server.url, running.id, streams.output(as_json=True)) == 0
    assert json.loads(streams.stdout) == {"id": running.id, "deleted": True}
