"""How long a call waits for another server, whichever client makes it. No I/O of its own."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

import httpx2
import structlog

CONNECT_S: Final = 10.0
WRITE_S: Final = 30.0
"""For each piece of the request's body, not the whole: 8 MiB of images may take longer."""
READ_MARGIN_S: Final = 5.0
"""By how much the read timeout exceeds the attempt's longest deadline, so that the attempt's own always fires first."""
DRAIN_S: Final = 0.1
"""For the bytes after the last one we need: read, they leave a connection that the next call can use."""

IDLE_CONNECTIONS: Final = 20
"""Kept for the next calls. httpx2's own pool, used where there is a proxy, asks the socket of each whenever a call begins or
ends (docs/decisions/0023)."""
LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=IDLE_CONNECTIONS)
"""The lane's slots are the limit: a call that waited for a connection would look like a slow server."""

log = structlog.get_logger(__name__)


def read_timeout_s(silence_s: float) -> float:
    """Silence after which the socket itself gives up: a net under the attempt's own limit."""
    return silence_s + READ_MARGIN_S


def address(url: str) -> httpx2.URL | None:
    """The address of a server; None where it is none."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        return None
    usable = parsed.scheme in ("http", "https") and parsed.host and not any(map(str.isspace, url))
    return parsed if usable else None


async def drain(rest: AsyncIterator[Any], errors: tuple[type[Exception], ...]) -> None:
    """Reads what follows the end, and no longer than `DRAIN_S`. A failure here costs the connection, not the answer."""
    try:
        async with asyncio.timeout(DRAIN_S):
            async for _ in rest:
                pass
    except errors as error:
        log.debug("connection not reusable", error=type(error).__name__)
