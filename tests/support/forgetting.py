"""Redis as a restart or failover may leave it: as it was at an earlier moment, and with another history from there on."""

from typing import NamedTuple

from redis.asyncio import Redis

from shared import keys


class Kept(NamedTuple):
    ttl_ms: int
    value: bytes


Memory = dict[bytes, Kept]


async def remember(redis: Redis) -> Memory:
    """Everything there is, as it is now."""
    return {name: Kept(max(0, await redis.pttl(name)), await redis.dump(name)) async for name in redis.scan_iter()}


async def forget_since(redis: Redis, memory: Memory) -> None:
    """What was written since is gone, and to every record this is another primary than the one that it knew."""
    await redis.flushdb()
    for name, kept in memory.items():
        await redis.restore(name, kept.ttl_ms, kept.value)
        if name.startswith(keys.job("").encode()):
            await redis.hset(name.decode(), "replid", "the one before")  # type: ignore[misc]  # redis-py types both
    await redis.delete(keys.PRIMARY)
