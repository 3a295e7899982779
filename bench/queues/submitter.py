"""A process that submits a job to a peer's queue whenever it gets SIGUSR1, and prints `<job id> <time.monotonic_ns() before>`.

It says "ready" first. The clock is one that all processes of a machine share.
"""

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable

import uvloop

Enqueue = Callable[[], Awaitable[str]]
"""Submits a job and returns its id."""


async def submit_when_told(enqueue: Enqueue) -> None:
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, told.set)
    print("ready", flush=True)
    while True:
        await told.wait()
        told.clear()
        before = time.monotonic_ns()
        print(await enqueue(), before, flush=True)


def run(main: Callable[[], Awaitable[None]]) -> None:
    """As our own processes run: on uvloop."""

    async def ran() -> None:
        await main()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(ran())
