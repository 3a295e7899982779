"""All that lies in a Redis, as text to be searched: what must never be written there, by whatever way."""

from typing import Any, Final

from redis.asyncio import Redis


async def everything_in(redis: Redis) -> str:
    """Every key with its value, of every type."""
    lines = [f"{name!r} {await _value_of(redis, name)!r}" async for name in redis.scan_iter()]
    return "\n".join(lines)


_READ: Final = {
    b"string": "GET {}",
    b"hash": "HGETALL {}",
    b"list": "LRANGE {} 0 -1",
    b"set": "SMEMBERS {}",
    b"zset": "ZRANGE {} 0 -1 WITHSCORES",
    b"stream": "XRANGE {} - +",
}
"""By type; DUMP would do for all of them, but compresses."""


async def _value_of(redis: Redis, name: bytes) -> Any:
    command = _READ[await redis.type(name)].split()
    return await redis.execute_command(*(name if word == "{}" else word for word in command))  # type: ignore[no-untyped-call]
