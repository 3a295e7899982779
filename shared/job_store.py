"""The job's record as it stands in Redis, the Job folded from record and log, listings, live workers."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, cast

import msgspec
from redis.asyncio import Redis

from shared import keys
from shared.errors import JobNotFound
from shared.event_log import PAGE, EventLog, entries_of, fold_of
from shared.events import Timing
from shared.fold import AttemptEnd, Fold
from shared.ids import is_job_id
from shared.job import OPEN, Job, JobRequest, Solitude, Status
from shared.ownership import KeptUpstream
from shared.settings import Lane

PAGE_DEFAULT: Final = 20
PAGE_MOST: Final = 100
_SCAN: Final = 200
"""Records looked at in one round trip when a listing is filtered by status."""


class Record(msgspec.Struct, frozen=True):
    """The hash `lastevent:job:{id}`; times are Unix seconds. What scripts alone read is left out."""

    id: str
    status: Status
    model: str
    lane: Lane
    created_at: float
    request_json: bytes
    tenant: str = ""
    """Whose job it is: the name of the key that it was submitted with; without keys it is nobody's."""
    started_at: float | None = None
    finished_at: float | None = None
    worker: str | None = None
    owned: bool = False
    handover: bool = False
    fallback: str | None = None
    """The model to go on with, where a fallback brought the job to this lane."""
    before: AttemptEnd | None = None
    """How the attempt before that fallback ended."""
    cancel_asked: bool = False
    losses: int = 0
    """Workers that died while they ran it, as far as claims have counted them."""
    lost_alone: int = 0
    """Those of them that ran no other job."""
    solitude: Solitude | None = None
    """How the worker of its newest claim has it, or had it when it died; None: it runs among others."""
    upstream: KeptUpstream | None = None
    """What the newest attempt reads, or read, at a provider's, where that goes on by itself."""
    request_id: str = ""
    """What the call that submitted it is known by, in logs and at the provider; empty where an older release took it."""

    def request(self) -> JobRequest:
        """The request as it was accepted; it was validated then, and a newer release still reads it."""
        return JobRequest.model_validate_json(self.request_json)

    @property
    def is_open(self) -> bool:
        return self.status in OPEN


class WorkerInfo(msgspec.Struct, frozen=True):
    """A live worker, as `GET /v1/workers` shows it."""

    id: str
    lane: Lane
    host: str
    pid: int
    running: int
    slots: int
    started_at: float
    missing_keys: dict[str, str] = {}
    """Providers that would refuse its calls for want of a key, by name, and the variable to set where it runs."""


class JobPage(NamedTuple):
    """Newest first; `next` is the `after` of the next page."""

    jobs: list[Job]
    next: str | None


class Found(NamedTuple):
    """A record and the whole log, as a script answers `HGETALL` and `XRANGE`: flat."""

    fields: Sequence[bytes]
    entries: Sequence[tuple[bytes, Sequence[bytes]]]

    def look(self, job_id: str) -> "tuple[Record, Fold]":
        """As `JobStore.look` has it."""
        entries = entries_of((entry_id, _pairs(fields)) for entry_id, fields in self.entries)
        return _parse_record(job_id, _pairs(self.fields)), fold_of(entries)


class JobStore:
    def __init__(self, redis: Redis, log: EventLog) -> None:
        self._redis = redis
        self._log = log

    async def record(self, job_id: str) -> Record:
        """Raises JobNotFound."""
        if not is_job_id(job_id):
            raise JobNotFound(job_id)
        raw = await self._redis.hgetall(keys.job(job_id))  # type: ignore[misc]  # redis-py types both
        if not raw:
            raise JobNotFound(job_id)
        return _parse_record(job_id, raw)

    async def look(self, job_id: str) -> tuple[Record, Fold]:
        """Record and log, in one round trip for all but the longest logs. Record first: the log can only be ahead of it.

        Raises:
            JobNotFound: unknown, erased or expired.
        """
        if not is_job_id(job_id):
            raise JobNotFound(job_id)
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.hgetall(keys.job(job_id))
            pipe.xrange(keys.log(job_id), count=PAGE)
            raw, first_page = await pipe.execute()
        if not raw:
            raise JobNotFound(job_id)
        return _parse_record(job_id, raw), await self._log.fold(job_id, entries_of(first_page))

    async def check(self, job_id: str, tenant: str = "") -> None:
        """Raises JobNotFound where the tenant has no such job."""
        if not is_job_id(job_id):
            raise JobNotFound(job_id)
        fields = ["status", "tenant"]
        status, whose = await self._redis.hmget(keys.job(job_id), fields)  # type: ignore[misc]  # redis-py types both
        if status is None or (whose or b"").decode() != tenant:
            raise JobNotFound(job_id)

    async def job(self, job_id: str, tenant: str = "") -> Job:
        """The Job of protocol 2.2.

        Raises:
            JobNotFound: unknown, erased, expired, or another tenant's.
        """
        record, state = await self.look(job_id)
        if record.tenant != tenant:
            raise JobNotFound(job_id)
        if record.is_open and state.terminal is not None:
            record = await self.record(job_id)  # ended between the two reads
        return to_job(record, state)

    async def page(
        self, tenant: str = "", *, status: Status | None = None, limit: int = PAGE_DEFAULT, after: str | None = None
    ) -> JobPage:
        """A page of the tenant's jobs. `after` is a job id of the page before; raises JobNotFound when it is unknown."""
        listing, position = keys.jobs_of(tenant), 0
        if after is not None:
            rank = await self._redis.zrevrank(listing, after)
            if rank is None:
                raise JobNotFound(after)
            position = rank + 1
        found: list[Record] = []
        while len(found) <= limit:
            ids = [i.decode() for i in await self._redis.zrevrange(listing, position, position + _SCAN - 1)]
            found += [r for r in await self._records(ids) if r.tenant == tenant and status in (None, r.status)]
            position += len(ids)
            if len(ids) < _SCAN:
                break
        shown = found[:limit]
        jobs = [to_job(record, await self._log.fold(record.id)) for record in shown]
        return JobPage(jobs, shown[-1].id if len(found) > limit else None)

    async def workers(self) -> list[WorkerInfo]:
        """The live ones, by lane and age."""
        seconds, micros = await self._redis.time()
        now_ms = seconds * 1000 + micros // 1000
        ids = await self._redis.zrangebyscore(keys.WORKERS, now_ms, "+inf")
        if not ids:
            return []
        raw = await self._redis.mget([keys.worker(i.decode()) for i in ids])
        infos = [msgspec.json.decode(value, type=WorkerInfo) for value in raw if value]
        return sorted(infos, key=lambda info: (info.lane, info.started_at, info.id))

    async def _records(self, job_ids: list[str]) -> list[Record]:
        """Those that still exist; the index outlives the records for a while."""
        if not job_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(keys.job(job_id))
            raws = await pipe.execute()
        return [_parse_record(job_id, raw) for job_id, raw in zip(job_ids, raws, strict=True) if raw]


def to_job(record: Record, state: Fold) -> Job:
    terminal = state.terminal
    return Job(
        id=record.id,
        status=record.status,
        model=record.model,
        created_at=record.created_at,
        started_at=record.started_at,
        finished_at=record.finished_at,
        text=state.text,
        reasoning=state.reasoning,
        refusal=state.refusal,
        tool_calls=state.tool_calls,
        finish_reason=state.finish_reason(),
        usage=state.usage(),
        timing=terminal.timing if terminal else timing_so_far(record, state),
        attempts=state.listed_attempts(),
        error=state.error(),
        last_event_id=str(state.last_id),
        metadata=record.request().metadata,
        events_url=f"/v1/jobs/{record.id}/events",
    )


def timing_so_far(record: Record, state: Fold) -> Timing:
    return Timing(queue_s=_since(record.created_at, record.started_at), ttft_s=_since(record.created_at, state.first_output_at))


def _pairs(flat: Sequence[bytes]) -> dict[bytes, bytes]:
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _since(start: float, end: float | None) -> float | None:
    return None if end is None else round(max(0.0, end - start), 6)


def _parse_record(job_id: str, raw: Mapping[bytes, bytes]) -> Record:
    def number(name: bytes) -> float | None:
        value = raw.get(name)
        return float(value) if value else None

    return Record(
        id=job_id,
        status=cast(Status, raw[b"status"].decode()),
        model=raw[b"model"].decode(),
        lane=raw[b"lane"].decode(),
        created_at=float(raw[b"created_at"]),
        request_json=raw[b"request"],
        tenant=raw.get(b"tenant", b"").decode(),
        started_at=number(b"started_at"),
        finished_at=number(b"finished_at"),
        worker=raw[b"worker"].decode() if b"worker" in raw else None,
        owned=b"owner" in raw,
        handover=b"handover" in raw,
        fallback=raw[b"fallback"].decode() if b"fallback" in raw else None,
        before=msgspec.json.decode(raw[b"before"], type=AttemptEnd) if b"before" in raw else None,
        cancel_asked=b"cancel" in raw,
        losses=int(raw.get(b"losses", 0)),
        lost_alone=int(raw.get(b"lost_alone", 0)),
        solitude=cast(Solitude, raw[b"solitude"].decode()) if b"solitude" in raw else None,
        upstream=KeptUpstream.parse(raw[b"upstream"]) if b"upstream" in raw else None,
        request_id=raw.get(b"request_id", b"").decode(),
    )
