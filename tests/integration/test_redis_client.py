"""Clients of shared/redis_client.py on a real Redis: a cancel is a cancel, wherever it comes."""

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from shared.redis_client import make_push_connection
from tests.support.waiting import wait_until


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


async def test_a_connection_that_was_closed_meanwhile_is_replaced(redis: Redis) -> None:
    """The pool asks what the loop knows of it, and takes no turn of the loop to find out."""
    before = await redis.client_id()
    await redis.client_kill_filter(_id=str(before), skipme=False)
    await wait_until(lambda: bool(_stream(redis).at_eof()))
    assert await redis.client_id() != before


async def test_a_connection_with_an_answer_that_nobody_took_is_replaced(redis: Redis) -> None:
    """Else the next command would get the answer of the one before."""
    before = await redis.client_id()
    [connection] = redis.connection_pool._available_connections
    await connection.send_command("PING")
    await wait_until(lambda: bool(_stream(redis)._buffer), message="the answer is there")
    assert await redis.echo("mine") == b"mine"
    assert await redis.client_id() != before


async def test_pushes_are_read_all_at_once_and_a_refusal_is_raised(redis: Redis) -> None:
    connection = make_push_connection(redis)
    await connection.connect()  # type: ignore[no-untyped-call]
    try:
        await connection.send_command("SUBSCRIBE", "a")
        assert await connection.read_all() == [[b"subscribe", b"a", 1]]
        async with redis.pipeline() as together:
            for text in ("1", "2", "3"):
                together.publish("a", text)
            await together.execute()
        await wait_until(lambda: bool(connection._reader._buffer))  # type: ignore[union-attr]
        assert await connection.read_all() == [[b"message", b"a", text] for text in (b"1", b"2", b"3")]
        await connection.send_command("GET", "a")
        with pytest.raises(ResponseError, match="allowed in this context"):
            await connection.read_all()
        await connection.disconnect()
        with pytest.raises(RedisConnectionError):
            await connection.read_all()
    finally:
        await connection.disconnect(nowait=True)


def _stream(redis: Redis) -> Any:
    """What asyncio has read on the pool's one connection."""
    [connection] = redis.connection_pool._available_connections
    return connection._reader
