"""web/server.py: what a stopping process says to whom, and in which order."""

import asyncio
import signal
import time
from types import SimpleNamespace
from typing import Any

import uvicorn
from sse_starlette.sse import AppStatus

from shared.settings import Settings
from tests.support.waiting import wait_until
from web.server import StreamServer


def server_of(lame_duck_s: float, told: list[str]) -> StreamServer:
    """A server that serves nobody; its hub notes when it sends readers away."""
    context: Any = SimpleNamespace(
        leaving=asyncio.Event(),
        settings=Settings(lame_duck_s=lame_duck_s),
        hub=SimpleNamespace(drain=lambda: told.append("readers")),
    )
    server = StreamServer(uvicorn.Config(lambda: None, log_config=None), context)
    server.servers = []
    server.lifespan = SimpleNamespace(shutdown=_nothing)
    return server


async def _nothing() -> None:
    pass


async def test_a_signal_ends_the_wait_at_once() -> None:
    server = server_of(0, [])
    serving = asyncio.create_task(server.main_loop())
    await wait_until(lambda: server.server_state.default_headers != [], message="the date of its answers is set")
    assert not serving.done()
    asked = time.monotonic()
    server.handle_exit(signal.SIGTERM, None)
    await serving
    assert time.monotonic() - asked < 0.5, "it did not wait for the next look"
    AppStatus.should_exit = False  # process-wide; the next test's streams would end at once


async def test_a_signal_before_it_began_is_not_forgotten() -> None:
    server = server_of(0, [])
    server.handle_exit(signal.SIGTERM, None)
    asked = time.monotonic()
    await server.main_loop()
    assert time.monotonic() - asked < 0.5, "it did not begin to wait"
    AppStatus.should_exit = False


async def test_balancers_are_told_first_and_readers_only_when_that_has_had_its_time() -> None:
    told: list[str] = []
    server = server_of(60, told)
    stopping = asyncio.create_task(server.shutdown())
    await wait_until(server._context.leaving.is_set)
    assert (told, stopping.done()) == ([], False)

    server.force_exit = True  # a second Ctrl-C
    await stopping
    assert told == ["readers"]


async def test_where_no_balancer_asks_readers_are_told_at_once() -> None:
    told: list[str] = []
    stopping = asyncio.create_task(server_of(0, told).shutdown())
    await asyncio.sleep(0)
    assert told == ["readers"]
    await stopping
