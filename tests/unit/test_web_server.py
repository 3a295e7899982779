"""web/server.py: what a stopping process says to whom, and in which order."""

import asyncio
from types import SimpleNamespace
from typing import Any

import uvicorn

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
