"""Scenario E: what a token costs in the log: bytes of Redis' memory, round trips, CPU of the worker and of Redis.

Ours is the worker's own writer, which puts what all its jobs produced during one round trip into the next. Beside it the plain
way: each job awaits an `XADD` and a `PUBLISH` of its own for every token. Both are given the same tokens at the same beat.
"""

import json
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis

from bench.figures import OURS, Finding, Row, Target
from bench.owned_log import Owner
from bench.stage import Child, Stage
from shared import keys
from shared.events import Token, to_data
from shared.redis_client import make_client
from worker.writer import Writer

PLAIN: Final = "XADD + PUBLISH a token"
TOKENS: Final = 2000
TEXT: Final = " token"
"""Six characters: what a token of English text has, about."""
_PER_S: Final = 20


class Load(NamedTuple):
    """So many streams at once, for so many seconds each way. The plain way cannot keep up with a thousand, and takes six times
    as long as it should: fewer tokens say so as well."""

    streams: int
    ours_s: int
    plain_s: int


_LOADS, _LOADS_QUICK = (Load(200, 4, 4), Load(1000, 3, 2)), (Load(200, 3, 3),)


async def run(stage: Stage) -> Finding:
    redis_server = await stage.redis()
    redis = make_client(stage.settings())
    try:
        stage.say(f"log: {TOKENS:,} tokens in one log")
        memory = [
            Row("2,000 tokens in a log", OURS, {"B/token": await _our_bytes(redis, stage)}),
            Row("2,000 tokens in a log", PLAIN, {"B/token": await _plain_bytes(redis)}),
        ]
    finally:
        await redis.aclose()
    loads = _LOADS_QUICK if stage.quick else _LOADS
    cost = [await _under(stage, redis_server, way, load) for load in loads for way in (OURS, PLAIN)]
    return Finding(
        letter="E",
        title="The log: memory, and the writer's work",
        rows=memory + cost,
        compare="CPU µs/token",
        targets=[
            Target("Redis memory per token entry", memory[0].figures["B/token"], 40, "B"),
            Target(f"writer CPU per token at {loads[-1].streams:,} streams", cost[-2].figures["CPU µs/token"], 25, "µs"),
        ],
        notes=["CPU µs/token: the writing process less what the same process takes to produce the tokens and drop them."],
    )


async def _our_bytes(redis: Redis, stage: Stage) -> float:
    """A log of ours, less what its opening takes."""
    owner = Owner(redis, stage.settings(), Writer)
    async with owner.working():
        out = await owner.open()
        least = await _bytes(redis, keys.log(out.owner.job_id))
        for _ in range(TOKENS):
            await out.append(Token(TEXT))
        await out.flush()
        took = await _bytes(redis, keys.log(out.owner.job_id)) - least
        await owner.end(out)
    return round(took / TOKENS, 1)


async def _plain_bytes(redis: Redis) -> float:
    """As tutorials write it: the event's JSON under one field, ids by Redis."""
    name = "bench:plain"
    entry: dict[Any, Any] = {"data": to_data(Token(TEXT))}
    await redis.xadd(name, entry)
    least = await _bytes(redis, name)
    async with redis.pipeline(transaction=False) as pipe:
        for _ in range(TOKENS):
            pipe.xadd(name, entry)
        await pipe.execute()
    return round((await _bytes(redis, name) - least) / TOKENS, 1)


async def _bytes(redis: Redis, name: str) -> int:
    """Exactly: every node of the stream is looked at."""
    return int(await redis.memory_usage(name, samples=0))


async def _under(stage: Stage, redis_server: Child, way: str, load: Load) -> Row:
    """Its streams at `_PER_S` tokens a second each, in a process of its own."""
    stage.say(f"log: {load.streams:,} streams at {_PER_S} tokens/s, {way}")
    name, length_s = ("ours", load.ours_s) if way == OURS else ("plain", load.plain_s)
    arguments = (name, str(load.streams), str(_PER_S), str(length_s))
    child = await stage.python("bench.token_source", *arguments, may_end=True, **stage.environment())
    await child.line()  # "begins"
    before = redis_server.cpu_s
    said = json.loads(await child.line(20.0 * length_s + 30))
    tokens = said["tokens"]
    figures = {
        "CPU µs/token": round((said["cpu_s"] - said["idle_cpu_s"]) / tokens * 1e6, 1),
        "Redis µs/token": round((redis_server.cpu_s - before) / tokens * 1e6, 1),
        "round trips/token": round(said["round_trips"] / tokens, 3),
        "p50 ms": said["p50_ms"],
        "p99 ms": said["p99_ms"],
        "tokens/s": round(tokens / said["seconds"]),
    }
    await child.stop()
    return Row(f"{load.streams:,} streams at {_PER_S}/s", way, figures)
