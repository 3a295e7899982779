"""Many streams of tokens out of one process, written in one of two ways.

Run as `python -m bench.token_source WAY STREAMS PER_S SECONDS`, WAY being `ours` or `plain`. First it produces the tokens and
drops them: what that takes is not the writer's. Then it prints "begins", writes them, and prints one line of JSON. A token's
latency runs from its being produced to Redis' acknowledgement.
"""

import asyncio
import json
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import uvloop
from redis.asyncio import Redis

from bench.owned_log import Owner
from cli.bench_runs import percentile
from shared.events import Token, to_data
from shared.redis_client import make_client
from shared.settings import Settings, load_settings
from worker.leases import Leases
from worker.log_handle import LogHandle
from worker.writer import Writer

TEXT: Final = " token"

Sink = Callable[[int], Awaitable[None]]
"""Takes one token of the stream with this number."""


class Tally:
    """What the writing cost so far. `waits` are seconds from a token's being there to its being in the log."""

    def __init__(self) -> None:
        self.round_trips = 0
        self.waits: list[float] = []


class CountingWriter(Writer):
    """The worker's writer, with its round trips counted and its tokens timed."""

    def __init__(self, redis: Redis, settings: Settings, leases: Leases) -> None:
        super().__init__(redis, settings, leases)
        self.tally = Tally()
        self.born: defaultdict[LogHandle, list[float]] = defaultdict(list)
        """When each token that is not in the log yet was produced."""

    async def _execute(self, rows: Any) -> Any:
        answers = await super()._execute(rows)
        now = time.perf_counter()
        self.tally.round_trips += 1
        for handle, offers in rows:
            born = self.born[handle]
            self.tally.waits += [now - at for at in born[: len(offers)]]
            del born[: len(offers)]
        return answers


@asynccontextmanager
async def _ours(redis: Redis, settings: Settings, streams: int) -> AsyncIterator[tuple[Sink, Tally]]:
    owner = Owner(redis, settings, CountingWriter)
    writer = owner.writer
    async with owner.working():
        handles = [await owner.open() for _ in range(streams)]

        async def sink(i: int) -> None:
            writer.born[handles[i]].append(time.perf_counter())
            await handles[i].append(Token(TEXT))

        yield sink, writer.tally
        for handle in handles:
            await owner.end(handle)


@asynccontextmanager
async def _plain(_redis: Redis, settings: Settings, streams: int) -> AsyncIterator[tuple[Sink, Tally]]:
    """As redis-py comes: a connection for every call that is under way."""
    tally = Tally()
    redis = Redis.from_url(settings.redis_url.get_secret_value())
    names = [f"bench:stream:{i}" for i in range(streams)]

    async def sink(i: int) -> None:
        begun = time.perf_counter()
        data = to_data(Token(TEXT))
        entry_id = await redis.xadd(names[i], {"data": data})
        await redis.publish(names[i], b"id: %s\ndata: %s\n\n" % (entry_id, data))
        tally.round_trips += 2
        tally.waits.append(time.perf_counter() - begun)

    yield sink, tally
    await redis.aclose()


async def _nowhere(_i: int) -> None:
    """Where the tokens go when only their making is measured."""


async def _stream(i: int, sink: Sink, per_s: float, seconds: float, begun: float) -> int:
    """One stream on its own beat, out of step with the others."""
    loop = asyncio.get_running_loop()
    n = int(seconds * per_s)
    for k in range(n):
        due = begun + (k + (i * 0.618) % 1) / per_s
        await asyncio.sleep(max(0.0, due - loop.time()))
        await sink(i)
    return n


async def _produce(sink: Sink, streams: int, per_s: float, seconds: float) -> tuple[int, float]:
    """Tokens produced, and the CPU seconds of this process that it took."""
    cpu = time.process_time()
    begun = asyncio.get_running_loop().time()
    made = await asyncio.gather(*(_stream(i, sink, per_s, seconds, begun) for i in range(streams)))
    return sum(made), time.process_time() - cpu


async def main(way: str, streams: int, per_s: float, seconds: float) -> None:
    settings = load_settings()
    redis = make_client(settings)
    async with {"ours": _ours, "plain": _plain}[way](redis, settings, streams) as (sink, tally):
        _, idle_cpu_s = await _produce(_nowhere, streams, per_s, seconds / 2)
        idle_cpu_s *= 2
        print("begins", flush=True)
        begun = time.perf_counter()
        made, cpu_s = await _produce(sink, streams, per_s, seconds)
        took = time.perf_counter() - begun
    ms = {f"p{p}_ms": round(percentile(tally.waits, p) * 1000, 3) for p in (50, 99)}
    cost = {"cpu_s": cpu_s, "idle_cpu_s": idle_cpu_s, "round_trips": tally.round_trips}
    print(json.dumps({"tokens": made, "seconds": took, **cost, **ms}), flush=True)
    await redis.aclose()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
