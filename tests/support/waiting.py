"""Waiting for a condition instead of sleeping for a guess."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

INTERVAL_S = 0.01


async def wait_until(condition: Callable[[], bool | Awaitable[bool]], timeout: float = 10.0, message: str = "") -> None:
    """Returns as soon as `condition()` holds; fails the test after `timeout` seconds."""
    deadline = asyncio.get_running_loop().time() + timeout
    while True:
        outcome = condition()
        if inspect.isawaitable(outcome):
            outcome = await outcome
        if outcome:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise AssertionError(f"not within {timeout:g} s: {message or 'the condition'}")
        await asyncio.sleep(INTERVAL_S)


async def until_time(moment: float) -> None:
    """Returns at a moment of `time.monotonic()`: for tests whose subject is how long something lasted."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
