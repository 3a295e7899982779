"""Events on a fixed beat, each with the time in its text, which the readers compare with their own: one clock for a machine."""

import asyncio
import time
from collections.abc import Awaitable, Callable


def stamped(*, counts: bool = True) -> str:
    """A token's text with the time in it, as the load client finds it; one that does not count has another mark."""
    return f"{'@' if counts else '~'}{time.monotonic_ns() // 1000:016d} word "


async def on_beat(write: Callable[[str], Awaitable[None]], seconds: float, per_s: float, *, counts: bool = True) -> int:
    """Writes for so long, and returns how many. A slow write makes none after it later than itself."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    n = round(seconds * per_s)
    for i in range(n):
        await asyncio.sleep(max(0.0, begun + i / per_s - loop.time()))
        await write(stamped(counts=counts))
    return n
