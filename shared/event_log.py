"""The event log: one Redis Stream a job, ids given explicitly, every write behind the owner's token (docs/REDIS.md).

Reading is for everyone. Writing goes through the scripts in `lua/`, which check owner and status first, so that what a
superseded worker offers is refused and reaches no reader (protocol P5).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Literal, NamedTuple

import msgspec
from redis.asyncio import Redis

from shared import keys
from shared.events import AnyEvent, Error, StartReason, Terminal, from_fields, private_of, to_data
from shared.fold import AttemptEnd, Fold
from shared.ids import START, EventId, is_job_id
from shared.job import TERMINAL, Solitude, Status
from shared.log_commands import check_answer, final_status, opening_of, outside_start, private_of_start
from shared.ownership import KeptUpstream, Lease, Ownership
from shared.redis_client import scripts
from shared.settings import Lane, Settings

PAGE: Final = 1000
"""Entries read at once: some 30 KB to 100 KB, a few milliseconds of this process."""


class Entry(NamedTuple):
    """One stored entry. Its fields stay as Redis keeps them until somebody wants the event."""

    id: EventId
    fields: Mapping[bytes, bytes]

    @property
    def event(self) -> AnyEvent:
        return from_fields(self.fields)


class Place(NamedTuple):
    """A cursor against a log: whether the log holds that entry, its last id, whether it has its terminal event."""

    held: bool
    last: EventId
    ended: bool


ClaimRefusal = Literal["moved", "wait", "lost", "ended", "gone", "cancelled"]


class ClaimRefused(NamedTuple):
    """Why a claim was not granted; `wait_ms` only with `wait`."""

    why: ClaimRefusal
    wait_ms: int = 0


class EventLog:
    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self.closed: Counter[tuple[Status, str]] = Counter()
        """Jobs that this process ended from outside, by status and, of errors, code."""

    # --- reading -----------------------------------------------------------------------------------------------------

    async def read(self, job_id: str, after: EventId = START, count: int = PAGE) -> list[Entry]:
        """Up to `count` entries after a cursor, in order; empty at the log's end and for a log that is not there."""
        raw = await self._redis.xrange(keys.log(job_id), min=f"({after}", max="+", count=count)
        return entries_of(raw)

    async def fold(self, job_id: str, first_page: list[Entry] | None = None) -> Fold:
        """The whole log as one state; `last_id` is 0-0 when there is no log. `first_page`, where the caller has it, saves a
        round trip."""
        page = await self.read(job_id) if first_page is None else first_page
        state = fold_of(page)
        while len(page) == PAGE:
            page = await self.read(job_id, state.last_id)
            fold_of(page, state)
        return state

    async def place(self, job_id: str, cursor: EventId, tenant: str = "") -> "Place | None":
        """Where a cursor stands in a job's log; None when the tenant has no such job. One round trip."""
        if not is_job_id(job_id):
            return None
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(keys.job(job_id), ["status", "tenant"])
            pipe.xrange(keys.log(job_id), min=str(cursor), max=str(cursor), count=1)
            pipe.xrevrange(keys.log(job_id), count=1)
            (status, whose), held, newest = await pipe.execute()
        if status is None or (whose or b"").decode() != tenant:
            return None
        last = EventId.from_redis(newest[0][0]) if newest else START
        return Place(held=bool(held), last=last, ended=status.decode() in TERMINAL)

    async def last_ids(self, job_ids: Sequence[str]) -> list[EventId | None]:
        """The last id of each log, None for one that is not there; one round trip."""
        if not job_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.xrevrange(keys.log(job_id), count=1)
            answers = await pipe.execute()
        return [EventId.from_redis(newest[0][0]) if newest else None for newest in answers]

    # --- writing -----------------------------------------------------------------------------------------------------

    async def claim(
        self,
        lease: Lease,
        worker: str,
        model: str,
        seen: EventId,
        *,
        reset: bool,
        before: AttemptEnd | None = None,
        solitude: Solitude | None = None,
        beside: str | None = None,
        upstream: KeptUpstream | None = None,
        read_on: int | None = None,
    ) -> Ownership | ClaimRefused:
        """Makes the holder of a lease the owner of the job's next attempt and writes `N-0` (protocol 3).

        `seen` is the log's last id as the caller read it, and `upstream` what it found in the record: when either has moved on
        since, nothing is claimed. `before` is how the attempt before it ended, where that is not in the log yet. `beside` is
        the job that runs alone no more once this one runs too. `read_on` is the position that `upstream` is read on from; None
        leaves it to be cancelled.
        """
        opening = opening_of(seen, worker, model, reset, private_of_start(before, read_on), solitude or "", beside or "")
        answer = await scripts.run(
            self._redis,
            "claim",
            [keys.job(lease.job_id), keys.log(lease.job_id), keys.arq_in_progress(lease.job_id), keys.PRIMARY],
            [
                lease.token,
                worker,
                str(seen),
                self._settings.open_ttl_s,
                int(self._settings.lease_s * 1000),
                int(reset),
                opening.rest,
                opening.private,
                opening.solitude,
                opening.beside,
                str(upstream or ""),
                int(read_on is not None),
            ],
        )
        word = answer[0].decode()
        if word == "ok":
            reason = answer[2].decode()
            if reason == "first":
                opening = msgspec.structs.replace(opening, reset=False)
            return Ownership(lease, int(answer[1]), reason, opening)
        return ClaimRefused(word, int(answer[1]) if word == "wait" else 0)

    async def note_solitude(self, owner: Ownership, solitude: Solitude | None) -> None:
        """Says anew how the worker has the job, where that has changed since its claim.

        Raises:
            LogRefused: it is not ours to run any more.
        """
        answer = await scripts.run(self._redis, "solitude", [keys.job(owner.job_id)], [owner.lease.token, solitude or ""])
        check_answer(answer, owner.job_id)

    async def note_upstream(self, owner: Ownership, upstream: KeptUpstream) -> None:
        """Which response the attempt reads, for whoever takes the job over.

        Raises:
            LogRefused: nothing was noted; which one says why.
        """
        answer = await scripts.run(self._redis, "note_upstream", [keys.job(owner.job_id)], [owner.lease.token, str(upstream)])
        check_answer(answer, owner.job_id)

    async def again(
        self,
        owner: Ownership,
        seen: EventId,
        worker: str,
        model: str,
        reason: StartReason,
        *,
        reset: bool,
        before: AttemptEnd,
        read_on: int | None = None,
    ) -> Ownership | None:
        """The owner's next attempt, after the one it holds has failed; None when a cancel was asked for meanwhile. `read_on` as
        in `claim`.

        Raises:
            LogRefused: nothing was written; which one says why.
        """
        opening = opening_of(seen, worker, model, reset, private_of_start(before, read_on))
        answer = await scripts.run(
            self._redis,
            "again",
            [keys.job(owner.job_id), keys.log(owner.job_id)],
            [
                owner.lease.token,
                owner.attempt,
                str(seen),
                self._settings.open_ttl_s,
                reason,
                int(reset),
                opening.rest,
                opening.private,
                int(read_on is not None),
            ],
        )
        if answer[0] == b"cancelled":
            return None
        check_answer(answer, owner.job_id)
        return Ownership(owner.lease, int(answer[1]), reason, opening)

    async def move(self, owner: Ownership, here: Lane, there: Lane, model: str, before: AttemptEnd) -> None:
        """Gives the job to another lane, whose next free worker goes on with `model` as a fallback.

        Raises:
            LogRefused: it is not ours to give any more.
        """
        answer = await scripts.run(
            self._redis,
            "move",
            [
                keys.job(owner.job_id),
                keys.queue(here),
                keys.queue(there),
                keys.open_jobs(here),
                keys.open_jobs(there),
                keys.wake(there),
            ],
            [owner.job_id, owner.lease.token, there, model, msgspec.json.encode(before), keys.LIST_TTL_MS],
        )
        check_answer([answer], owner.job_id)

    async def close(
        self,
        job_id: str,
        event: Terminal,
        model: str,
        worker: str,
        *,
        lease: Lease | None = None,
        seen: EventId | None = None,
    ) -> str:
        """Ends a job that nobody owns any more (protocol 3: "whoever ends a started job from outside").

        Returns `ok`, or why not: `ended`, `gone`, `lost` (the lease is another's), `moved` (`seen` is not the last id).
        """
        answer = await scripts.run(
            self._redis,
            "close_job",
            [keys.job(job_id), keys.log(job_id), keys.arq_in_progress(job_id)],
            [
                job_id,
                lease.token if lease else "",
                final_status(event),
                to_data(event),
                outside_start(model, worker),
                self._settings.retention_s,
                str(seen) if seen else "",
            ],
        )
        if answer[0] == b"ok":
            self.closed[final_status(event), event.code if isinstance(event, Error) else ""] += 1
        return str(answer[0].decode())


def fold_of(entries: Iterable[Entry], state: Fold | None = None) -> Fold:
    """What entries tell, in order; added to `state` where that holds those before them."""
    state = Fold() if state is None else state
    for entry in entries:
        state.add(entry.id, entry.event, private_of(entry.fields))
    return state


def entries_of(raw: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Entry]:
    """What `XRANGE` answered, as entries."""
    return [Entry(EventId.from_redis(entry_id), fields) for entry_id, fields in raw]
