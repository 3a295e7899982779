"""Taking, renewing and giving back leases: who runs a job, and for how long that holds (docs/ARCHITECTURE.md, "Ownership").

arq's own claim has no owner and is never renewed. Here a lease is a short in-progress key whose value is a token, and a queue
score pushed past now; both are renewed for all of a worker's jobs in one round trip, three times a lease.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Literal, NamedTuple

import msgspec
import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.job_store import Found, WorkerInfo
from shared.ownership import Lease
from shared.redis_client import UNREACHABLE, Arg, scripts
from shared.settings import Settings
from worker.control import Running

log = structlog.get_logger()

Renewal = Literal["ok", "cancel", "lost"]


class Taken(NamedTuple):
    """A job leased to this worker. `payload` is arq's, empty where that is gone; `found` the job as the lease found it, where
    nobody has started it yet."""

    lease: Lease
    payload: bytes = b""
    found: Found | None = None


class Identity(msgspec.Struct, frozen=True):
    """This worker process, as `started` events and `GET /v1/workers` name it."""

    id: str
    lane: str
    host: str
    pid: int
    slots: int
    started_at: float
    missing_keys: dict[str, str] = {}


class Leases:
    def __init__(self, redis: Redis, settings: Settings, identity: Identity, running: Running) -> None:
        self._redis = redis
        self._settings = settings
        self._identity = identity
        self._running = running
        self._queue = keys.queue(identity.lane)
        self._held: dict[str, Lease] = {}
        self.contest: Callable[[str], bool] = lambda _job_id: False
        """Asked before a lease is believed lost: whether the job's claim may be what Redis forgot, and is looked into."""
        self.renewed_at = time.monotonic()
        """When the last renewal that succeeded was sent: all leases held then."""
        self._renewed = asyncio.Event()
        self._due = asyncio.Event()
        self._lease_ms = int(settings.lease_s * 1000)
        self._rounds = 0
        self.lost = 0
        """Leases that another had, or nobody, when they were to be renewed."""

    async def take(self, slots: int) -> list[Taken]:
        """Leases up to `slots` due jobs of the lane; one round trip."""
        prefix = f"{self._identity.id}.{secrets.token_hex(4)}"
        answer = await scripts.run(self._redis, "take", [self._queue], [prefix, slots, self._lease_ms])
        taken = []
        for job_id_raw, token, payload, *found in answer:
            lease = Lease(job_id=job_id_raw.decode(), token=token.decode())
            if lease.job_id in self._held:
                # Its lease lapsed while we were still at it, and nobody else took it. The run goes on under the token that
                # the record names; the next renewal puts that one back.
                continue
            self._held[lease.job_id] = lease
            taken.append(Taken(lease, payload, Found(*found) if found[0] else None))
        return taken

    async def done_with(self, lease: Lease) -> None:
        """The job has ended, or is another's: drop what is still ours of it."""
        await self._release(lease, score="", handover=False)

    async def give_back(self, lease: Lease, *, after_ms: int = 0, handover: bool = False) -> None:
        """The job is open and not run here any more: to be looked at again after a while, or handed over at once."""
        await self._release(lease, score=str(int(time.time() * 1000) + after_ms), handover=handover)

    def forget(self, lease: Lease) -> None:
        """Renews it no more: the job is not run here, and giving it back failed."""
        if self._held.get(lease.job_id) is lease:
            del self._held[lease.job_id]

    async def wait_until_fresh(self) -> None:
        """Returns once this worker's leases are known to hold.

        A worker that slept through its lease (SIGSTOP, a suspended machine, a partition) may own nothing any more: it writes
        nothing until a renewal said so.
        """
        while time.monotonic() - self.renewed_at > self._settings.lease_s:
            self._renewed.clear()
            await self._renewed.wait()

    def renew_soon(self) -> None:
        """Redis is back after it was away: whoever waits to write waits for the next renewal."""
        self._due.set()

    async def renew_forever(self) -> None:
        """Renews every third of a lease, through outages, until cancelled."""
        away = False
        while True:
            self._due.clear()
            try:
                await self._renew()
            except UNREACHABLE as error:
                if not away:
                    log.warning("leases cannot be renewed: Redis is away", error=str(error))
                away = True
            except RedisError as error:
                log.error("leases cannot be renewed", error=str(error))
            else:
                if away:
                    log.info("leases are renewed again")
                away = False
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.lease_s / 3):
                    await self._due.wait()

    async def announce_end(self) -> None:
        """This worker is gone from the list of live ones; where Redis cannot be told, its entry lapses with the lease."""
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.delete(keys.worker(self._identity.id), keys.signal(self._identity.id))
                pipe.zrem(keys.WORKERS, self._identity.id)
                await pipe.execute()
        except UNREACHABLE as error:
            log.warning("this worker's end could not be announced: Redis is away", error=str(error))

    async def _renew(self) -> None:
        self._rounds += 1
        asked_at = time.monotonic()
        leases = list(self._held.values())
        # The day-long TTLs need no renewal three times a lease: every hundredth round is minutes.
        ttl = self._settings.open_ttl_s if self._rounds % 100 == 0 else 0
        args: list[Arg] = [self._lease_ms, ttl, self._identity.id, self._info()]
        for lease in leases:
            args += [lease.job_id, lease.token]
        names = [self._queue, keys.PRIMARY, keys.worker(self._identity.id), keys.WORKERS]
        answers: list[bytes] = await scripts.run(self._redis, "renew", names, args)
        self.renewed_at = asked_at
        self._renewed.set()
        for lease, answer in zip(leases, answers, strict=True):
            self._take_in(lease, answer)

    def _take_in(self, lease: Lease, answer: bytes) -> None:
        if self._held.get(lease.job_id) is not lease:
            return  # given back while the renewal was under way
        if answer == b"cancel":
            self._running.stop(lease.job_id, "cancel")
        elif answer == b"lost" and not self.contest(lease.job_id):
            self.lost += 1
            log.warning("lease lost", job=lease.job_id)
            self._running.stop(lease.job_id, "lost")

    def _info(self) -> bytes:
        """This worker, as it is announced with each renewal."""
        identity = self._identity
        info = WorkerInfo(
            id=identity.id,
            lane=identity.lane,
            host=identity.host,
            pid=identity.pid,
            running=len(self._running),
            slots=identity.slots,
            started_at=identity.started_at,
            missing_keys=identity.missing_keys,
        )
        return msgspec.json.encode(info)

    async def _release(self, lease: Lease, *, score: str, handover: bool) -> None:
        self.forget(lease)
        await scripts.run(
            self._redis,
            "release",
            [keys.job(lease.job_id), self._queue, keys.arq_in_progress(lease.job_id), keys.wake(self._identity.lane)],
            [lease.job_id, lease.token, score, int(handover), keys.LIST_TTL_MS],
        )
