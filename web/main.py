"""Builds the web application and serves it: routes, lifespan, errors."""

import asyncio
import contextlib
import math
import signal
from collections.abc import AsyncIterator

import structlog
import uvicorn
import uvloop
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from shared.errors import ConfigurationError, LasteventError
from shared.event_log import EventLog
from shared.exposure import check_chaos, check_exposure
from shared.file_limit import few_readers, raise_file_limit
from shared.garbage import spare_what_stays
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.logs import set_up_logs
from shared.loop_lag import LoopLag
from shared.redis_client import UNREACHABLE, check_redis, make_client
from shared.settings import Settings
from web import health, jobs, problems, stream
from web.assets import asset_routes
from web.chaos import kill_route
from web.context import Context
from web.hub import Hub
from web.metrics import Metrics, metrics
from web.middleware import middleware
from web.openapi import openapi
from web.operations import operations
from web.server import StreamProtocol, StreamServer, bind
from web.stream_tokens import StreamTokens

log = structlog.get_logger()


def run(settings: Settings, chaos_fd: int | None = None) -> None:
    """Serves until SIGTERM or SIGINT.

    Args:
        chaos_fd: the pipe of `lastevent up --allow-chaos`, where it was started by that (`web/chaos.py`).

    Raises:
        ConfigurationError: the port is taken, Redis is not as it must be; nothing was started.
    """
    set_up_logs(settings, tier="web")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(settings, chaos_fd))


async def serve(settings: Settings, chaos_fd: int | None = None) -> None:
    check_exposure(settings)
    few = few_readers(raise_file_limit(), settings)
    if few is not None:
        log.warning(few)
    sock = bind(settings.host, settings.port)
    redis = make_client(settings)
    try:
        await check_redis(redis, settings)
    except ConfigurationError:
        sock.close()
        raise
    finally:
        await redis.aclose()
    app = build_app(settings, chaos_fd)
    config = uvicorn.Config(
        app,
        http=StreamProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=math.ceil(settings.web_drain_s) + 1,  # the hub cuts readers off before
        # The page keeps its connections; balancers want theirs kept longer than their own idle time.
        timeout_keep_alive=75,
    )
    server = StreamServer(config, app.state.context)
    host, port = sock.getsockname()[:2]
    spare_what_stays()
    log.info("web is listening", host=host, port=port, keys=len(settings.api_keys))
    if settings.allow_remote and not settings.api_keys:
        log.warning("there are no keys: whoever reaches the port can spend your money")
    await server.serve(sockets=[sock])


def _die_with_the_hub(listening: "asyncio.Task[None]") -> None:
    """Without its hub this process would hold readers for nothing: it stops, and whoever runs it starts it again."""
    if not listening.cancelled() and (error := listening.exception()) is not None:
        log.critical("the hub failed; stopping", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


def build_app(settings: Settings, chaos_fd: int | None = None) -> Starlette:
    """The ASGI application. Its lifespan runs the hub; `app.state.context` is what its handlers share.

    Raises:
        ConfigurationError: a chaos pipe for a server that others than this machine reach.
    """
    if chaos_fd is not None:
        check_chaos(settings)
    redis = make_client(settings)
    # A durable submit keeps its connection for as long as the disk takes: not one that readers wait for.
    submits = make_client(settings) if settings.durable_submit else redis
    event_log = EventLog(redis, settings)
    hub = Hub(redis, event_log, settings)
    loop_lag = LoopLag()
    store = JobStore(redis, event_log)
    context = Context(
        settings=settings,
        redis=redis,
        log=event_log,
        store=store,
        queue=JobQueue(submits, settings),
        hub=hub,
        metrics=Metrics(hub, loop_lag, redis, store, settings.lanes),
        tokens=StreamTokens(redis, settings),
        leaving=asyncio.Event(),
    )

    @contextlib.asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        listening = asyncio.create_task(hub.run_forever(), name="hub")
        listening.add_done_callback(_die_with_the_hub)
        loop_lag.start()
        try:
            yield
        finally:
            loop_lag.stop()
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
            await submits.aclose()
            await redis.aclose()

    assets = asset_routes(chaos=chaos_fd is not None)
    app = Starlette(
        routes=[*_calls(), *([kill_route(chaos_fd)] if chaos_fd is not None else []), *assets],
        exception_handlers={
            LasteventError: problems.on_lastevent_error,
            HTTPException: problems.on_http_exception,
            **dict.fromkeys(UNREACHABLE, problems.on_redis_away),
            Exception: problems.on_bug,
        },
        middleware=middleware(settings, context.tokens, {asset.path for asset in assets}),
        lifespan=lifespan,
    )
    app.state.context = context
    return app


def _calls() -> list[Route]:
    """Those of protocol 2."""
    return [
        Route("/v1/jobs", jobs.submit, methods=["POST"]),
        Route("/v1/jobs", jobs.listing, methods=["GET"]),
        Route("/v1/jobs/{job_id}", jobs.get, methods=["GET"]),
        Route("/v1/jobs/{job_id}", jobs.delete, methods=["DELETE"]),
        Route("/v1/jobs/{job_id}/events", stream.events, methods=["GET"]),
        Route("/v1/jobs/{job_id}/cancel", jobs.cancel, methods=["POST"]),
        Route("/v1/jobs/{job_id}/token", jobs.token, methods=["POST"]),
        Route("/v1/models", health.models, methods=["GET"]),
        Route("/v1/workers", health.workers, methods=["GET"]),
        Route("/v1/operations", operations, methods=["GET"]),
        Route("/healthz", health.healthz, methods=["GET"]),
        Route("/readyz", health.readyz, methods=["GET"]),
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/metrics", metrics, methods=["GET"]),
    ]
