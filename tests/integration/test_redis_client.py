"""Clients of shared/redis_client.py on a real Redis: a cancel is a cancel, wherever it comes."""

import asyncio

import pytest
from redis.asyncio import Redis


@pytest.mark.parametrize("steps", range(14))
async def test_a_cancel_is_never_swallowed(redis: Redis, steps: int) -> None:
    """redis-py writes under `asyncio.wait_for`, which on Python 3.11 swallows a cancel that comes as the write is done: a
    worker told to stop then went on for ever."""
    await redis.ping()
    task: asyncio.Task[object] = asyncio.create_task(redis.blpop(["nothing"], timeout=1))  # type: ignore[arg-type]
    for _ in range(steps):
        await asyncio.sleep(0)
    assert task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await redis.ping(), "and the pool is whole"
