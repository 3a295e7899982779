"""A worker without arq: runs one job when told, on a real log."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from redis.asyncio import Redis

from shared.event_log import Entry, EventLog
from shared.events import Started, Terminal, Token
from shared.ids import EventId
from shared.job_store import JobStore
from shared.loop_lag import LoopLag
from shared.ownership import Lease
from shared.settings import Settings
from tests.support.author import lease
from worker.company import Company
from worker.control import Control, Leave, Running
from worker.generate import generate
from worker.leases import Identity, Leases, Taken
from worker.metrics import WorkerMetrics
from worker.owned_job import Tools
from worker.providers.base import Provider
from worker.tokens import Tokens
from worker.upstreams import Upstreams
from worker.writer import Writer


class BareWorker:
    """It renews nothing: give it settings with a long lease."""

    def __init__(self, redis: Redis, settings: Settings, provider: Provider) -> None:
        self.log = EventLog(redis, settings)
        self.store = JobStore(redis, self.log)
        identity = Identity(id="w2", lane="api", host="here", pid=1, slots=1, started_at=0.0)
        self.writer = Writer(redis, settings, Leases(redis, settings, identity, Running()))
        self.providers: dict[str, Provider] = {provider.name: provider}
        self.upstreams = Upstreams(redis, self.providers, "api")
        self.tokens = Tokens()
        self.company = Company()
        self.metrics = WorkerMetrics(settings, "api", LoopLag())
        self._tools = Tools(
            settings, "w2", self.log, self.store, self.writer, self.providers, self.tokens, self.company, self.upstreams,
            self.metrics,
        )  # fmt: skip
        self._redis = redis

    async def run(self, job_id: str, control: Control | None = None, given: Lease | None = None) -> Leave:
        """Runs a job under a lease, a new one if none is given."""
        return await generate(Taken(given or await lease(self._redis, job_id)), control or Control(), self._tools)

    async def texts(self, job_id: str) -> list[str]:
        """The log's tokens, those of attempts that were discarded later too."""
        return [entry.event.text for entry in await self.log.read(job_id) if isinstance(entry.event, Token)]

    async def started(self, job_id: str, attempt: int) -> Started:
        """The event that opened an attempt."""
        event = next(entry.event for entry in await self.log.read(job_id) if entry.id == EventId(attempt, 0))
        assert isinstance(event, Started)
        return event

    async def entries(self, job_id: str) -> list[Entry]:
        """The log, checked for what holds of every ended one: `started` opens each attempt, one terminal event, last."""
        entries = await self.log.read(job_id)
        ends = [entry for entry in entries if entry.event.terminal]
        assert ends == entries[-1:], "exactly one terminal event, and nothing after it"
        for before, entry in pairwise(entries):
            if isinstance(entry.event, Started):
                assert entry.event.after == str(before.id)
            else:
                assert entry.id == before.id.next()
        return entries

    async def end_of(self, job_id: str) -> Terminal:
        event = (await self.entries(job_id))[-1].event
        assert isinstance(event, Terminal)
        return event


@asynccontextmanager
async def bare_worker(redis: Redis, settings: Settings, provider: Provider) -> AsyncIterator[BareWorker]:
    worker = BareWorker(redis, settings, provider)
    await worker.tokens.ready()
    writing = asyncio.create_task(worker.writer.run_forever())
    try:
        yield worker
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
