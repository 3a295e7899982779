"""The safety net under every promise that a job ends: looks through the open jobs of a lane for those nothing would move.

One worker of a deployment does a round at a time. It repairs where it can: a job whose queue entry or payload vanished gets
them back, and whoever takes it goes on from its log or ends it. And it cancels what jobs left behind at providers'.
"""

import asyncio
import time
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.errors import JobNotFound
from shared.event_log import EventLog
from shared.job_queue import payload
from shared.job_store import JobStore, Record
from shared.redis_client import UNREACHABLE
from shared.settings import Settings
from worker import recovery
from worker.recovery import Limits
from worker.upstreams import Upstreams

log = structlog.get_logger()

_AT_ONCE: Final = 500
"""Open jobs looked at in one round trip."""


class Reaper:
    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        event_log: EventLog,
        store: JobStore,
        upstreams: Upstreams,
        lane: str,
        worker_id: str,
    ) -> None:
        self._redis = redis
        self._settings = settings
        self._log = event_log
        self._store = store
        self._upstreams = upstreams
        self._lane = lane
        self._worker_id = worker_id
        self.moved = 0
        """Jobs that rounds had to move, since the start."""

    async def run_forever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.reap_s)
            try:
                if await self._on_duty():
                    await self._upstreams.sweep()
                    await self.round()
            except UNREACHABLE:
                continue  # leases and writer say that Redis is away
            except RedisError as error:
                log.error("the reaper's round failed", error=str(error))

    async def round(self) -> int:
        """Looks at every open job of the lane once; returns how many it had to move."""
        # All ids first: what a round removes would shift the ranks of those it has not seen yet.
        job_ids = [raw.decode() for raw in await self._redis.zrange(keys.open_jobs(self._lane), 0, -1)]
        moved = 0
        for start in range(0, len(job_ids), _AT_ONCE):
            for job_id in await self._stuck(job_ids[start : start + _AT_ONCE]):
                moved += await self._move(job_id)
        self.moved += moved
        return moved

    async def _on_duty(self) -> bool:
        round_ms = int(self._settings.reap_s * 900)  # a little less than a round: the next one finds the duty free
        return bool(await self._redis.set(keys.reaper(self._lane), self._worker_id, nx=True, px=round_ms))

    async def _stuck(self, job_ids: list[str]) -> list[str]:
        """Those without a queue entry or payload, without a record, or queued for longer than any job may be."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.zscore(keys.queue(self._lane), job_id)
                pipe.exists(keys.arq_job(job_id))
                pipe.hmget(keys.job(job_id), ["status", "created_at"])
            answers = await pipe.execute()
        now = time.time()
        stuck = []
        for i, job_id in enumerate(job_ids):
            score, has_payload, (status, created_at) = answers[3 * i : 3 * i + 3]
            waiting_s = now - float(created_at) if status == b"queued" and created_at else 0.0
            if score is None or not has_payload or status is None or waiting_s > 1.0:
                stuck.append(job_id)
        return stuck

    async def _move(self, job_id: str) -> int:
        try:
            record = await self._store.record(job_id)
        except JobNotFound:
            return int(await self._redis.zrem(keys.open_jobs(self._lane), job_id))
        if not record.is_open:  # it ended between the two reads; back in the queue it would be started once more, for nothing
            return int(await self._redis.zrem(keys.open_jobs(self._lane), job_id))
        if record.lane != self._lane:  # a fallback brought it elsewhere between the two reads
            return 0
        if record.status == "queued" and await self._expire(record):
            return 1
        return await self._requeue(record)

    async def _expire(self, record: Record) -> bool:
        """Ends a job that waited longer in the queue than it may; a busy lane would otherwise find it only in its turn."""
        limits = Limits.of(record.request(), self._settings)
        if time.time() - record.created_at <= limits.queue_s:
            return False
        state = await self._log.fold(record.id)
        event = recovery.failed(
            record, state, "expired", f"No worker was free for the job within its {limits.queue_s:g} s in the queue."
        )
        answer = await self._log.close(record.id, event, record.model, self._worker_id, seen=state.last_id)
        return answer == "ok"

    async def _requeue(self, record: Record) -> int:
        now_ms = int(time.time() * 1000)
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.set(
                keys.arq_job(record.id),
                payload(record.id, int(record.created_at * 1000)),
                ex=self._settings.open_ttl_s,
                nx=True,
            )
            pipe.zadd(keys.queue(self._lane), {record.id: now_ms}, nx=True)
            payload_was_gone, entry_was_gone = await pipe.execute()
        if not (payload_was_gone or entry_was_gone):
            return 0
        log.warning("an open job had fallen out of the queue", job=record.id)
        return 1
