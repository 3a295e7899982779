"""What must be true of a stored log and of what readers hold, against what the upstream is known to have said."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import NamedTuple

from redis.asyncio import Redis

from shared import keys
from shared.events import AnyEvent, Started, from_fields
from shared.ids import EventId


def counted_text(n: int) -> str:
    """What the upstream says as the model `count:<n>:<per second>` (tests/support/openai_server.py)."""
    return "".join(f"w{i} " for i in range(n))


class Stored(NamedTuple):
    """One entry of a log, as Redis holds it."""

    id: EventId
    event: AnyEvent


async def stored_log(redis: Redis, job_id: str) -> list[Stored]:
    """The raw log, by XRANGE: no cache, no page, no fold."""
    return parse_log(await redis.xrange(keys.log(job_id)))


def parse_log(raw: Iterable[tuple[bytes, Mapping[bytes, bytes]]]) -> list[Stored]:
    """What XRANGE answers."""
    return [Stored(EventId.from_redis(entry_id), from_fields(fields)) for entry_id, fields in raw]


def starts(log: list[Stored]) -> list[Started]:
    """Every attempt's opening, in order."""
    return [entry.event for entry in log if isinstance(entry.event, Started)]


def assert_sound(log: list[Stored]) -> None:
    """Protocol 3: without a hole, and one terminal event ends it."""
    assert_contiguous(log)
    assert [entry.event.terminal for entry in log] == [False] * (len(log) - 1) + [True], "one terminal event, the last"


def assert_contiguous(log: list[Stored]) -> None:
    """Protocol 3: it opens with `queued`, and each attempt, of a higher number than the last, with `N-0`; no hole in it."""
    assert log[0].id == EventId(0, 1)
    for before, entry in pairwise(log):
        if isinstance(entry.event, Started):
            assert entry.id == EventId(entry.event.attempt, 0)
            assert entry.id.attempt > before.id.attempt
            assert entry.event.after == str(before.id)
        else:
            assert entry.id == before.id.next(), f"a hole after {before.id}"


async def assert_all_sound(redis: Redis, job_ids: list[str]) -> None:
    for job_id in job_ids:
        assert_sound(await stored_log(redis, job_id))


async def assert_nothing_is_left_in_the_queue(redis: Redis, job_ids: list[str], lane: str = "api") -> None:
    """An ended job leaves no queue entry, no lease and no payload behind."""
    for name in (keys.queue(lane), keys.open_jobs(lane)):
        assert await redis.zcard(name) == 0, f"{name} still names {await redis.zrange(name, 0, -1)}"
    names = [name(job_id) for job_id in job_ids for name in (keys.arq_job, keys.arq_in_progress)]
    left = [name for name, value in zip(names, await redis.mget(names), strict=True) if value is not None]
    assert not left, f"left behind: {left}"
