"""What the operations view shows: how full the lanes are, and the last quarter of an hour in steps of 15 s. Kept in Redis, so
that every web process answers the same.

Workers add what they produced to the hash of the moment every few seconds (worker/operations.py). What ends is counted by the
script that ends it (`close` in lua/_common.lua), whoever calls it: a worker, the reaper, a cancel.

    tokens          output, as it came from the providers
    ttft:{i}        jobs whose first output came that long after the submit: `TTFT_BOUNDS[i]` seconds at most
    ended           jobs
    error:{code}    those of them that ended as `error`
"""

from collections.abc import Mapping, Sequence
from typing import Final

import msgspec
from redis.asyncio import Redis

from shared import keys
from shared.job_store import WorkerInfo
from shared.settings import Lane
from shared.spread import quantile_of

STEP_S: Final = 15
STEPS: Final = 60
"""A quarter of an hour."""
_KEEP_S: Final = STEP_S * (STEPS + 20)
"""The steps that are shown, and some more for clocks that differ. lua/_common.lua has the same."""

TTFT_BOUNDS: Final = tuple(0.001 * 1.25**n for n in range(62))
"""From 1 ms to 13 minutes, a quarter a step: quantiles are an eighth off at most."""

_TTFT: Final = b"ttft:"
_ERROR: Final = b"error:"


class LaneLoad(msgspec.Struct, frozen=True):
    """One lane. `oldest_s` is how long the job that waits longest has waited, null where none does."""

    lane: Lane
    queued: int
    oldest_s: float | None
    running: int
    slots: int


class WebLoad(msgspec.Struct, frozen=True):
    """The web process that answers: jobs that it follows, and their readers."""

    streams: int
    readers: int


class History(msgspec.Struct, frozen=True):
    """Whole steps, oldest first. `at` are their beginnings, Unix seconds; the seconds to the first token are null for a step in
    which no job got one."""

    at: list[int]
    ttft_p50_s: list[float | None]
    ttft_p99_s: list[float | None]
    tokens_per_s: list[float]
    finished: list[int]
    step_s: int = STEP_S


class Operations(msgspec.Struct, frozen=True):
    """What `GET /v1/operations` answers. `at`: Unix seconds, by Redis' clock; `errors`: jobs of the last quarter of an hour,
    and of the step that has begun, that ended as `error`, by code."""

    at: float
    lanes: list[LaneLoad]
    workers: list[WorkerInfo]
    web: WebLoad
    history: History
    errors: dict[str, int]


def step_of(now: float) -> int:
    """The beginning of the step that a moment is in, Unix seconds."""
    return int(now // STEP_S) * STEP_S


async def add(redis: Redis, tokens: int, ttft: Mapping[int, int], now: float) -> None:
    """Adds to the step of `now`; `ttft` are jobs by the index of their bound. Raises what redis-py raises."""
    name = keys.operations(step_of(now))
    async with redis.pipeline(transaction=False) as pipe:
        if tokens:
            pipe.hincrby(name, "tokens", tokens)
        for i, count in ttft.items():
            pipe.hincrby(name, f"ttft:{i}", count)
        pipe.expire(name, _KEEP_S)
        await pipe.execute()


async def lane_loads(redis: Redis, lanes: Sequence[Lane], workers: Sequence[WorkerInfo], now: float) -> list[LaneLoad]:
    """How full each lane is now. Running jobs stay in a lane's queue: what has no lease that holds waits. Raises what redis-py
    raises."""
    now_ms = int(now * 1000)
    async with redis.pipeline(transaction=True) as pipe:
        for lane in lanes:
            name = keys.queue(lane)
            pipe.zcard(name)
            pipe.zcount(keys.leased(lane), f"({now_ms}", "+inf")
            pipe.zrangebyscore(name, "-inf", now_ms, start=0, num=1, withscores=True)
        answers = await pipe.execute()
    loads = []
    for i, lane in enumerate(lanes):
        open_jobs, running, oldest = answers[3 * i : 3 * i + 3]
        oldest_s = round(max(0.0, now - oldest[0][1] / 1000), 3) if oldest else None
        slots = sum(worker.slots for worker in workers if worker.lane == lane)
        loads.append(LaneLoad(lane, max(0, open_jobs - running), oldest_s, running, slots))
    return loads


async def look(redis: Redis, lanes: Sequence[Lane], workers: list[WorkerInfo], web: WebLoad) -> Operations:
    """All that the view shows. Raises what redis-py raises."""
    now = await clock(redis)
    loads = await lane_loads(redis, lanes, workers, now)
    newest = step_of(now)
    at = [newest - STEP_S * n for n in range(STEPS, 0, -1)]
    async with redis.pipeline(transaction=False) as pipe:
        for step in (*at, newest):
            pipe.hgetall(keys.operations(step))
        steps: list[dict[bytes, bytes]] = await pipe.execute()
    return Operations(round(now, 3), loads, workers, web, _history(at, steps[:-1]), _errors(steps))


async def clock(redis: Redis) -> float:
    """Redis' own, Unix seconds: the one that all processes share."""
    seconds, micros = await redis.time()
    return float(seconds) + float(micros) / 1_000_000


def _history(at: list[int], steps: Sequence[Mapping[bytes, bytes]]) -> History:
    ttft = [_ttft_counts(step) for step in steps]
    return History(
        at=at,
        ttft_p50_s=[_quantile(counts, 0.5) for counts in ttft],
        ttft_p99_s=[_quantile(counts, 0.99) for counts in ttft],
        tokens_per_s=[round(int(step.get(b"tokens", 0)) / STEP_S, 3) for step in steps],
        finished=[int(step.get(b"ended", 0)) for step in steps],
    )


def _ttft_counts(step: Mapping[bytes, bytes]) -> list[int]:
    counts = [0] * (len(TTFT_BOUNDS) + 1)
    for field, count in step.items():
        if field.startswith(_TTFT):
            counts[min(int(field[len(_TTFT) :]), len(TTFT_BOUNDS))] += int(count)  # another release may have more bounds
    return counts


def _quantile(counts: Sequence[int], part: float) -> float | None:
    value = quantile_of(TTFT_BOUNDS, counts, part)
    return None if value is None else round(value, 6)


def _errors(steps: Sequence[Mapping[bytes, bytes]]) -> dict[str, int]:
    """The commonest first."""
    found: dict[str, int] = {}
    for step in steps:
        for field, count in step.items():
            if field.startswith(_ERROR):
                code = field[len(_ERROR) :].decode()
                found[code] = found.get(code, 0) + int(count)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
