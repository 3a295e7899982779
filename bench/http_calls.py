"""A client that costs next to nothing: one request, and how long its first token took. HTTP/1.1, kept alive, loopback."""

import asyncio
import json
import time
from typing import Any, Final, Self

END: Final = b"\r\n0\r\n\r\n"
"""The last chunk of a chunked body, with the end of the chunk before it."""


class Calls:
    """Calls of one server. Connections are kept and used again, as any client of some standing does."""

    def __init__(self, port: int, path: str, body: dict[str, Any], mark: bytes) -> None:
        """`mark`: what the first token's bytes hold."""
        payload = json.dumps(body).encode()
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
        )
        self._request = head.encode() + payload
        self._port = port
        self._mark = mark
        self._idle: list[_Call] = []

    async def first_token(self) -> float:
        """Makes one call and reads it to its end; seconds from the request to its first token.

        Raises:
            ConnectionError: the server hung up, or answered something else than a stream.
        """
        call = self._idle.pop() if self._idle else await self._connect()
        seconds = await call.run(self._request, self._mark)
        self._idle.append(call)
        return seconds

    async def _connect(self) -> "_Call":
        _, call = await asyncio.get_running_loop().create_connection(_Call, "127.0.0.1", self._port)
        return call

    def close(self) -> None:
        for call in self._idle:
            call.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Call(asyncio.Protocol):
    """One connection, one call at a time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        self._transport = transport

    async def run(self, request: bytes, mark: bytes) -> float:
        self._received, self._mark, self._first = b"", mark, 0.0
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        begun = time.perf_counter()
        self._transport.write(request)
        await self._done
        return self._first - begun

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._first and self._mark in self._received:
            self._first = time.perf_counter()
        if self._received.endswith(END) and not self._done.done():
            if self._first:
                self._done.set_result(None)
            else:
                self._done.set_exception(ConnectionError(f"no token in {self._received[:300]!r}"))
        elif b" 200 " not in self._received[:16] and not self._done.done():
            self._done.set_exception(ConnectionError(f"answered {self._received[:300]!r}"))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._done.done():
            self._done.set_exception(exc or ConnectionError("the server hung up"))

    def close(self) -> None:
        self._transport.close()
