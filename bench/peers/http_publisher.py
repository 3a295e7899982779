"""Publishes events by HTTP POST on one kept connection, one after the other: for servers that are written to that way."""

import asyncio
import re
from typing import Final, Self

from bench.stage import BenchFailed

_LENGTH: Final = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)

_LATEST_S: Final = 20.0
"""A server that takes longer than this for one event is not one that serves."""


class HttpPublisher:
    """Use as `async with`."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> Self:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()

    async def post(self, path: str, body: bytes) -> None:
        """Raises BenchFailed when it is not taken."""
        head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        try:
            async with asyncio.timeout(_LATEST_S):
                answer = await self._reader.readuntil(b"\r\n\r\n")
                length = _LENGTH.search(answer)
                await self._reader.readexactly(int(length[1]) if length else 0)
        except (OSError, asyncio.IncompleteReadError) as error:  # TimeoutError is an OSError
            raise BenchFailed(f"publishing to {path}: {error or type(error).__name__}") from error
        if not answer.startswith(b"HTTP/1.1 20"):
            raise BenchFailed(f"publishing to {path} was answered {answer.splitlines()[0].decode()}")
