"""Web and worker inside the test's own loop: a real uvicorn on a free port, a real arq worker, a scripted provider."""

import asyncio
import contextlib
import types
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import uvicorn.server
from sse_starlette.sse import AppStatus

from shared.redis_client import make_client
from shared.settings import Settings
from tests.support.waiting import wait_until
from web.hub import Hub
from web.main import build_app
from web.server import StreamProtocol, StreamServer, bind
from worker.main import WorkerProcess, new_identity
from worker.providers.base import Provider

_LOOK_S = 0.005


async def _briefly(_seconds: float) -> None:
    await asyncio.sleep(_LOOK_S)


# A server of uvicorn's that stops waits 0.1 s to begin with, and looks as seldom whether its connections are gone: as long as
# many a test takes. It is the only thing that it sleeps for.
uvicorn.server.asyncio = types.SimpleNamespace(**{**vars(asyncio), "sleep": _briefly})  # type: ignore[assignment,attr-defined]


class Web(NamedTuple):
    """A running web process: its base URL, and its hub for tests that look inside."""

    url: str
    hub: Hub


@asynccontextmanager
async def web_server(settings: Settings) -> AsyncIterator[str]:
    """Yields the base URL."""
    async with running_web(settings) as web:
        yield web.url


@asynccontextmanager
async def running_web(settings: Settings) -> AsyncIterator[Web]:
    app = build_app(settings)
    sock = bind("127.0.0.1", 0)
    config = uvicorn.Config(app, http=StreamProtocol, ws="none", log_config=None, access_log=False, timeout_graceful_shutdown=5)
    server = StreamServer(config, app.state.context)
    stop = asyncio.Event()
    server.main_loop = stop.wait  # type: ignore[method-assign,assignment]  # uvicorn's own looks every 0.1 s
    serving = asyncio.create_task(_serve(server, sock))
    try:
        await wait_until(lambda: server.started or serving.done(), message="uvicorn is up")
        yield Web(f"http://127.0.0.1:{sock.getsockname()[1]}", app.state.context.hub)
    finally:
        stop.set()
        await serving
        AppStatus.should_exit = False  # process-wide; the next test's streams would end at once


async def _serve(server: StreamServer, sock: object) -> None:
    # Not server.serve(): that takes the process' signal handlers, which are pytest's.
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]
    await server.serve(sockets=[sock])  # type: ignore[list-item]


@asynccontextmanager
async def running_worker(
    settings: Settings, provider: Provider | None = None, lane: str = "api"
) -> AsyncIterator[WorkerProcess]:
    """A worker of one lane with one provider, or with those of the settings; stopped at the end, its jobs handed over after
    the drain time."""
    providers = {provider.name: provider} if provider is not None else None
    process = WorkerProcess(settings, new_identity(settings, lane), providers)
    serving = asyncio.create_task(process.serve())
    try:
        await _until_announced(settings, process, serving)
        yield process
    finally:
        process.stop()
        await serving


async def _until_announced(settings: Settings, process: WorkerProcess, serving: "asyncio.Task[None]") -> None:
    redis = make_client(settings)

    async def announced() -> bool:
        if serving.done():
            await serving
        return bool(await redis.exists(f"lastevent:worker:{process.identity.id}"))

    try:
        await wait_until(announced, message="the worker is live")
    finally:
        await redis.aclose()


Making = Callable[..., Settings]
"""The `make_settings` fixture: settings for this test's Redis, with whatever the test says otherwise."""
