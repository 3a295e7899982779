"""What must hold of a job, what a worker believes of it, and what Redis holds: for tests/properties/test_core_machine.py."""

from typing import Any, NamedTuple

from redis.asyncio import Redis

from shared import keys
from shared.events import Token
from shared.ids import QUEUED, START, EventId
from shared.job import Status
from shared.ownership import Lease, Ownership
from shared.push import Push
from tests.support.truth import Stored, parse_log
from worker.leases import Leases


class Truth:
    """What a job's log and record must hold: nothing gets in here but by the rules of docs/PROTOCOL.md, 3 and 5."""

    def __init__(self) -> None:
        self.log: list[tuple[EventId, str]] = [(QUEUED, "queued")]
        self.status: Status | None = "queued"
        """None: erased."""
        self.owner: str | None = None
        """The token of the newest claim, as long as it may write."""
        self.cancelled = False
        self.pushes: list[Push] = []

    @property
    def last(self) -> EventId:
        return self.log[-1][0]

    @property
    def is_open(self) -> bool:
        return self.status in ("queued", "running")

    def end_from_outside(self, attempt: int, status: Status) -> None:
        """Protocol 3: a queued job ends at 0-2, a started one in an attempt of two entries."""
        if self.status == "running":
            assert attempt > self.last.attempt
            self.log.append((EventId(attempt, 0), "started"))
        self.end(status)

    def end(self, status: Status) -> None:
        self.log.append((self.last.next(), status))
        self.status, self.owner = status, None


class Run:
    """A worker at a leased job. `seen`: the log's last id when it looked. Once it is granted a claim: the `owner` that it is,
    and the words that it has written in that attempt, by its own account."""

    def __init__(self, worker: Leases, lease: Lease) -> None:
        self.worker, self.lease = worker, lease
        self.seen = START
        self.owner: Ownership | None = None
        self.words: list[str] = []

    @property
    def job_id(self) -> str:
        return self.lease.job_id

    @property
    def token(self) -> str:
        return self.lease.token

    def own(self, owner: Ownership) -> None:
        self.owner, self.words = owner, []


class Seen(NamedTuple):
    """What Redis holds after a step; two round trips."""

    logs: dict[str, list[Stored]]
    records: dict[str, dict[bytes, bytes]]
    queued: set[str]
    listed_as_open: set[str]
    with_payload: set[str]
    eternal_keys: list[str]

    @classmethod
    async def of(cls, redis: Redis, job_ids: list[str]) -> "Seen":
        async with redis.pipeline(transaction=False) as pipe:
            pipe.keys()
            pipe.zrange(keys.queue("api"), 0, -1)
            pipe.zrange(keys.open_jobs("api"), 0, -1)
            for job_id in job_ids:
                pipe.xrange(keys.log(job_id))
                pipe.hgetall(keys.job(job_id))
            raw_names, queued, listed, *of_jobs = await pipe.execute()
        names = [raw.decode() for raw in raw_names]
        async with redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.ttl(name)
            ttls = await pipe.execute()
        return cls(
            logs={job_id: parse_log(raw) for job_id, raw in zip(job_ids, of_jobs[::2], strict=True)},
            records=dict(zip(job_ids, of_jobs[1::2], strict=True)),
            queued={raw.decode() for raw in queued},
            listed_as_open={raw.decode() for raw in listed},
            with_payload={job_id for job_id in job_ids if keys.arq_job(job_id) in names},
            eternal_keys=[name for name, ttl in zip(names, ttls, strict=True) if ttl == -1],
        )


def said(event: Any) -> str:
    """An entry as `Truth` has it."""
    if isinstance(event, Token):
        return event.text
    kind = type(event).__name__.lower()
    return {"error": "failed"}.get(kind, kind)
