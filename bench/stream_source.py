"""Many streams written from one cheap process, in bulk: what is due goes out in one round trip, so that only the servers that
read them are measured.

Run as `python -m bench.stream_source WAY STREAMS PER_S SECONDS`. WAY is `ours`, logs of jobs claimed as a worker claims them,
written by the worker's own append command; or `plain`, an `XADD` a token in a pipeline. Empties Redis, prints one line of JSON,
the streams' names, waits for SIGUSR1, writes unstamped for a second, prints "begins", writes stamped, and prints how many there
were and by how much the latest of them was late.
"""

import asyncio
import json
import signal
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import uvloop
from redis.asyncio import Redis

from bench.beat import stamped
from bench.owned_log import Owner
from shared.events import Token
from shared.log_commands import Append, Offer, append_command
from shared.ownership import Ownership
from shared.redis_client import make_client
from shared.settings import load_settings
from worker.writer import Writer

WARM_UP_S: Final = 1.0
OVERTIME_S: Final = 2.0
"""How long beyond its time it goes on with what is late."""
_TICK_S: Final = 0.002
"""What came due within it shares a round trip, as the tokens of a busy worker do."""
_AT_ONCE: Final = 500
"""Tokens in a round trip, as the worker's writer has it."""

Write = Callable[[Sequence[int], bool], Awaitable[None]]
"""Writes one token, stamped or not, to each of these streams."""


def _ours(redis: Redis, owners: Sequence[Ownership]) -> Write:
    written = [0] * len(owners)

    async def write(due: Sequence[int], counts: bool) -> None:
        text = stamped(counts=counts)
        appends = [Append(owners[i], written[i] + 1, [Offer(Token(text))]) for i in due]
        answers: list[Any] = await redis.execute_command(*append_command(appends))  # type: ignore[no-untyped-call]
        assert all(answer[0] == b"ok" for answer in answers), answers
        for i in due:
            written[i] += 1

    return write


def _plain(redis: Redis, names: Sequence[str]) -> Write:
    async def write(due: Sequence[int], counts: bool) -> None:
        text = stamped(counts=counts)
        async with redis.pipeline(transaction=False) as pipe:
            for i in due:
                pipe.xadd(names[i], {"text": text})
            await pipe.execute()

    return write


async def _write_all(write: Write, streams: int, per_s: float, seconds: float, *, counts: bool) -> tuple[int, float]:
    """Every stream on the same beat, out of step with the others; how many were written, and by how many seconds the latest of
    them was late. Ends soon after its time where Redis, or this process, cannot keep up."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    coming = deque(sorted(((k + (i * 0.618) % 1) / per_s, i) for i in range(streams) for k in range(round(seconds * per_s))))
    total, latest_s = len(coming), 0.0
    while coming and loop.time() - begun < seconds + OVERTIME_S:
        await asyncio.sleep(max(_TICK_S, begun + coming[0][0] - loop.time()))
        passed = loop.time() - begun
        latest_s = max(latest_s, passed - coming[0][0])
        due: dict[int, None] = {}
        while coming and coming[0][0] <= passed and coming[0][1] not in due and len(due) < _AT_ONCE:
            due[coming.popleft()[1]] = None
        if due:
            await write(list(due), counts)
    return total - len(coming), latest_s


async def main(way: str, streams: int, per_s: float, seconds: float) -> None:
    settings = load_settings()
    redis = make_client(settings)
    await redis.flushdb()  # else the jobs of a source before this one were due again, and taken in place of its own
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
    async with AsyncExitStack() as working:
        if way == "ours":
            owner = Owner(redis, settings, Writer)
            await working.enter_async_context(owner.working())
            owners = [(await owner.open()).owner for _ in range(streams)]
            names, write = [owned.job_id for owned in owners], _ours(redis, owners)
        else:
            names = [f"stream{streams}x{i}" for i in range(streams)]
            write = _plain(redis, names)
        print(json.dumps(names), flush=True)
        await told.wait()
        await _write_all(write, streams, per_s, WARM_UP_S, counts=False)
        print("begins", flush=True)
        begun = time.monotonic()
        tokens, latest_s = await _write_all(write, streams, per_s, seconds, counts=True)
        took = time.monotonic() - begun
        print(json.dumps({"tokens": tokens, "seconds": round(took, 3), "latest_ms": round(latest_s * 1000, 1)}), flush=True)
    await redis.aclose()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4])))
