"""Builds and supervises a worker for one lane: connections, writer, leases, provider, arq; and stops them in order."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog
import uvloop
from arq.connections import ArqRedis

from shared.errors import ConfigurationError
from shared.event_log import EventLog
from shared.garbage import spare_what_stays
from shared.job_store import JobStore
from shared.logs import set_up_logs
from shared.loop_lag import LoopLag
from shared.provider_table import Kind
from shared.providers import ProviderConfig, missing_keys, provider_configs
from shared.redis_client import Primary, check_redis, make_blocking_client, make_pool
from shared.settings import API_LANE, LOCAL_LANE, Settings
from worker.company import Company
from worker.control import Control, Leave, Running
from worker.generate import generate
from worker.leased_worker import LeasedWorker
from worker.leases import Identity, Leases, Taken
from worker.metrics import WorkerMetrics
from worker.metrics_server import served
from worker.operations import OperationsWriter
from worker.owned_job import Tools
from worker.providers.base import Provider
from worker.reaper import Reaper
from worker.tokens import Tokens
from worker.upstreams import Upstreams
from worker.writer import Writer

log = structlog.get_logger()

JobWork = Callable[[Taken, Control, Tools], Awaitable[Leave]]

_LAST_WORDS_S = 4.0
"""What handing over may take once the drain time is over: a flush and a script a job."""


def run(settings: Settings, lane: str) -> None:
    """Serves a lane until SIGTERM or SIGINT.

    Raises:
        ConfigurationError: Redis, a model or a package is not as it must be; nothing was started.
    """
    if lane not in (API_LANE, LOCAL_LANE):
        raise ConfigurationError(f"there is no lane {lane!r}: it is {API_LANE} or {LOCAL_LANE}")
    identity = new_identity(settings, lane)
    set_up_logs(settings, lane=lane, worker=identity.id)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(WorkerProcess(settings, identity).serve())


def new_identity(settings: Settings, lane: str) -> Identity:
    slots = settings.api_slots if lane == API_LANE else settings.local_slots
    return Identity(
        id=f"{lane}-{secrets.token_hex(4)}",
        lane=lane,
        host=settings.hostname,
        pid=os.getpid(),
        slots=slots,
        started_at=round(time.time(), 3),
        missing_keys=missing_keys(settings) if lane == API_LANE else {},
    )


def make_providers(settings: Settings, lane: str) -> dict[str, Provider]:
    """The providers that this lane serves; torch is imported for the local lane alone."""
    providers: list[Provider] = []
    if lane == LOCAL_LANE:
        from worker.providers.local import LocalProvider

        providers.append(LocalProvider(settings))
    else:
        from worker.providers.anthropic import AnthropicProvider
        from worker.providers.ollama import OllamaProvider
        from worker.providers.openai import OpenAIProvider
        from worker.providers.openai_background import OpenAIBackgroundProvider

        def openai(config: ProviderConfig) -> Provider:
            return OpenAIBackgroundProvider(config) if config.background else OpenAIProvider(config)

        of_kind: dict[Kind, Callable[[ProviderConfig], Provider]]
        of_kind = {"openai": openai, "anthropic": AnthropicProvider, "ollama": OllamaProvider}
        providers += [of_kind[config.kind](config) for config in provider_configs(settings).values()]
    return {provider.name: provider for provider in providers}


def _calls_servers(settings: Settings) -> bool:
    """Whether a key or an address is set, so that calls of this lane's models are likely."""
    return any(config.base_url or config.key for config in provider_configs(settings).values())


class WorkerProcess:
    """One worker, from connect to goodbye. `job` is what it does with a leased job; the bench puts a clock around it."""

    def __init__(
        self, settings: Settings, identity: Identity, providers: dict[str, Provider] | None = None, job: JobWork = generate
    ) -> None:
        self._settings = settings
        self.identity = identity
        self._providers = make_providers(settings, identity.lane) if providers is None else providers
        self._job = job
        self._tokens = Tokens()
        self._loop_lag = LoopLag()
        self._metrics = WorkerMetrics(settings, identity.lane, self._loop_lag)
        self._stopping = asyncio.Event()
        self._stop_now = asyncio.Event()

    def stop(self) -> None:
        """Takes no more jobs, gives running ones the drain time, then hands them over. A second call skips the drain."""
        if self._stopping.is_set():
            self._stop_now.set()
        self._stopping.set()

    async def serve(self) -> None:
        """Returns once stopped. Raises ConfigurationError before anything was taken."""
        async with served(self._settings, self._metrics.registry) as metrics_url:
            await self._connect(metrics_url)

    async def _connect(self, metrics_url: str | None) -> None:
        settings = self._settings
        primary = Primary()
        pool = ArqRedis(make_pool(settings, primary=primary))
        signals = make_blocking_client(settings, settings.poll_s, primary)
        loop = asyncio.get_running_loop()
        for signum in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(signum, self.stop)
        try:
            await check_redis(pool, settings)
            if await self._start_providers():
                await self._serve(pool, signals, primary, metrics_url)
            else:
                log.info("worker was told to stop before it was ready")
                # A thread that reads a model's files cannot be stopped, and Python would wait for it. There is nothing to lose.
                os._exit(0)
        finally:
            for provider in self._providers.values():
                await provider.close()
            await self._tokens.close()
            await signals.aclose()
            await pool.aclose(close_connection_pool=True)  # arq leaves its pool open

    async def _start_providers(self) -> bool:
        """Loads what must be loaded; False when told to stop meanwhile. Raises ConfigurationError."""
        starting = asyncio.create_task(self._start_all())
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([starting, stop], return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return False
            await starting
            return True
        finally:
            stop.cancel()

    async def _start_all(self) -> None:
        for provider in self._providers.values():
            await provider.start()
        if self.identity.lane == API_LANE and _calls_servers(self._settings):
            self._tokens.begin()  # now, while no job is disturbed; where none will come, by the first that does

    async def _serve(self, pool: ArqRedis, signals: Any, primary: Primary, metrics_url: str | None) -> None:
        settings, identity = self._settings, self.identity
        running = Running()
        leases = Leases(pool, settings, identity, running)
        writer = Writer(pool, settings, leases)
        leases.contest = writer.contest
        primary.on_change(writer.doubt_all)
        primary.on_change(leases.renew_soon)
        event_log = EventLog(pool, settings)
        store = JobStore(pool, event_log)
        company = Company()
        upstreams = Upstreams(pool, self._providers, identity.lane)
        tools = Tools(
            settings, identity.id, event_log, store, writer, self._providers, self._tokens, company, upstreams, self._metrics
        )  # fmt: skip
        worker = LeasedWorker(
            pool, signals, settings, identity, leases, running, company, event_log, store,
            lambda taken, c: self._job(taken, c, tools),
        )  # fmt: skip
        reaper = Reaper(pool, settings, event_log, store, upstreams, identity.lane, identity.id)
        operations = OperationsWriter(pool, self._metrics.tally)
        self._metrics.watch(writer, leases, running, identity.slots, reaper, event_log)
        self._loop_lag.start()
        chores = _Chores()
        for chore in (worker.main, leases.renew_forever, writer.run_forever, reaper.run_forever, operations.run_forever):
            chores.start(chore)
        spare_what_stays()
        log.info("worker is ready", slots=identity.slots, pid=identity.pid, **({"metrics": metrics_url} if metrics_url else {}))
        try:
            await chores.watch_until(self._stopping)
            await worker.stop_taking()
            await self._drain(worker, running)
            await leases.announce_end()
            await operations.flush()
        finally:
            self._loop_lag.stop()
            await chores.stop()

    async def _drain(self, worker: LeasedWorker, running: Running) -> None:
        log.info("worker is stopping", running=len(running), drain_s=self._settings.drain_s)
        idle = asyncio.create_task(worker.wait_until_idle())
        now = asyncio.create_task(self._stop_now.wait())
        try:
            await asyncio.wait([idle, now], timeout=self._settings.drain_s, return_when=asyncio.FIRST_COMPLETED)
            running.stop_all("handover")
            await asyncio.wait([idle], timeout=_LAST_WORDS_S)
        finally:
            for task in (idle, now):
                task.cancel()


class _Chores:
    """The tasks that a worker cannot live without: the end of one is the end of the worker."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, chore: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._tasks.append(asyncio.create_task(chore(), name=chore.__qualname__))

    async def watch_until(self, stopping: asyncio.Event) -> None:
        """Returns when told to stop; raises what a chore died of. Its jobs' leases lapse, and others take them."""
        stop = asyncio.create_task(stopping.wait())
        try:
            done, _ = await asyncio.wait([stop, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        for task in done:
            if task is not stop:
                await task

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
