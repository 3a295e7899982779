"""Logs that this process may write to, opened as a worker opens them: submit, lease, claim, writer."""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

from redis.asyncio import Redis

from shared.event_log import EventLog
from shared.events import Done, Timing, Usage
from shared.ids import QUEUED
from shared.job import JobRequest
from shared.job_queue import JobQueue
from shared.models import resolve
from shared.ownership import Ownership
from shared.redis_client import make_client
from shared.settings import API_LANE, Settings
from worker.control import Running
from worker.leases import Identity, Leases
from worker.log_handle import LogHandle
from worker.writer import Writer

MODEL: Final = "openai/bench"


W = TypeVar("W", bound=Writer)


class Owner(Generic[W]):
    """A worker without a queue loop and without providers: it owns what it opens."""

    def __init__(self, redis: Redis, settings: Settings, writer: type[W]) -> None:
        identity = Identity("bench-owner", API_LANE, settings.hostname, os.getpid(), slots=10_000, started_at=time.time())
        self._redis = redis
        self._settings = settings
        self._log = EventLog(redis, settings)
        self._leases = Leases(redis, settings, identity, Running())
        self.writer = writer(redis, settings, self._leases)

    async def open(self) -> LogHandle:
        """A new job's log, at its first attempt."""
        queue = JobQueue(self._redis, self._settings)
        await queue.submit(JobRequest(model=MODEL, prompt="Hello"), resolve(MODEL, self._settings))
        (taken,) = await self._leases.take(1)
        owner = await self._log.claim(taken.lease, "bench-owner", MODEL, QUEUED, reset=False)
        assert isinstance(owner, Ownership), "the queue holds no other job"
        return self.writer.open(owner)

    async def end(self, out: LogHandle) -> None:
        """Writes what is left, and the end: nothing is due in the queue afterwards."""
        await out.end(Done("stop", Usage(), Timing()), {})
        await self._leases.done_with(out.owner.lease)

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """Renews and writes meanwhile."""
        chores = [asyncio.create_task(self._leases.renew_forever()), asyncio.create_task(self.writer.run_forever())]
        try:
            yield
        finally:
            for chore in chores:
                chore.cancel()
            await asyncio.gather(*chores, return_exceptions=True)


@asynccontextmanager
async def owned_log(settings: Settings) -> AsyncIterator[LogHandle]:
    """One log, written as long as the context lasts."""
    redis = make_client(settings)
    try:
        owner = Owner(redis, settings, Writer)
        async with owner.working():
            out = await owner.open()
            try:
                yield out
            finally:  # left open it would be due again, and taken in place of the next one
                await owner.end(out)
    finally:
        await redis.aclose()
