"""One HTTP/1.1 connection to a provider's server: a request out, an answer in, as often as both sides keep it open.

    begin(request) ──▶ Head          status and headers, once they are here
    read() ──▶ bytes … b""           what has come of the body since; then the end
    reusable                         whether the next request may go the same way

What comes from the socket goes into a list and wakes whoever reads, without a task, a lock or a timer of its own
(docs/decisions/0037). Errors are httpx2's, as its own transport raises them.
"""

import asyncio
import re
import select
from collections.abc import Callable
from typing import Final

import httpx2

from worker.providers.http_answer import Answer, Head, NotHttp

HELD_BYTES: Final = 256 * 1024
"""Beyond so much that nobody has read, the socket is left alone, and the server has to wait."""

_ENDS_A_HEADER: Final = re.compile(rb"[\r\n\0]")


class Connection(asyncio.Protocol):
    """Made by `loop.create_connection`; used by one exchange at a time."""

    def __init__(self, lost: Callable[["Connection"], None]) -> None:
        """`lost` is called once the connection is no more, whoever ended it."""
        self._loop = asyncio.get_running_loop()
        self._lost = lost
        self._closed = False
        self._writable = True
        self._answer = Answer()
        self._failure: httpx2.TransportError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._waits_since = 0.0
        self._read_s: float | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def reusable(self) -> bool:
        """Whether the answer is whole, the server keeps the connection open, and has sent nothing that nobody asked for."""
        return self._answer.keeps and not self._closed

    @property
    def stale(self) -> bool:
        """Of an idle connection: the server has closed it, or said something, and the loop has not come to it yet."""
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    async def begin(self, request: httpx2.Request, read_s: float | None, write_s: float | None) -> Head:
        """Sends a request and waits for the head of its answer.

        Args:
            read_s: how long the server may be silent, here and in every `read`; None for ever.
            write_s: how long it may take nothing of the request.

        Raises:
            httpx2.TransportError: the subclass says what went wrong.
        """
        self._stop_timer()
        self._read_s = read_s
        self._answer = Answer(has_body=request.method != "HEAD")
        await self._send(request, write_s)
        while self._answer.head is None:
            if self._failure is not None:
                raise self._failure
            await self._wait()
        return self._answer.head

    async def read(self) -> bytes:
        """What has come of the body since the last call; b"" once there is no more.

        Raises:
            httpx2.TransportError: after everything that came before it was read.
        """
        answer = self._answer
        while not answer.held:
            if answer.complete:
                return b""
            if self._failure is not None:
                raise self._failure
            await self._wait()
        if answer.held > HELD_BYTES:
            self._transport.resume_reading()
        return answer.take()

    def abort(self, why: httpx2.TransportError | None = None) -> None:
        """Closes the socket at once; whoever still reads gets `why`."""
        self._fail(why or httpx2.ReadError("The connection was closed on this side."))
        if not self._closed:
            self._transport.abort()

    # --- the request -------------------------------------------------------------------------------------------------

    async def _send(self, request: httpx2.Request, write_s: float | None) -> None:
        pieces = [_head_of(request)]
        in_chunks = request.headers.get("transfer-encoding", "").lower() == "chunked"
        async for piece in request.stream:  # type: ignore[union-attr]  # an async client's requests are async
            if piece:
                pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece) if in_chunks else piece)
                await self._write(b"".join(pieces), write_s)
                pieces.clear()
        if in_chunks:
            pieces.append(b"0\r\n\r\n")
        if pieces:
            await self._write(b"".join(pieces), write_s)

    async def _write(self, data: bytes, write_s: float | None) -> None:
        """A server that closes while we write may have said why: its answer is read all the same."""
        if self._closed:
            return
        self._transport.write(data)
        if self._writable:
            return
        try:
            async with asyncio.timeout(write_s):
                while not self._writable and not self._closed:
                    self._waiter = self._loop.create_future()
                    await self._waiter
        except TimeoutError:
            raise httpx2.WriteTimeout(f"The server took nothing of the request for {write_s} s.") from None
        finally:
            self._waiter = None

    # --- the answer --------------------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Until something came, or failed."""
        self._waiter = self._loop.create_future()
        self._waits_since = self._loop.time()
        if self._timer is None and self._read_s is not None:
            self._timer = self._loop.call_later(self._read_s, self._look_for_silence)
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _look_for_silence(self) -> None:
        """One timer an exchange, set anew when it fires: setting one for every read would cost as much as reading."""
        self._timer = None
        if self._waiter is None or self._read_s is None:
            return
        left = self._waits_since + self._read_s - self._loop.time()
        if left > 0:
            self._timer = self._loop.call_later(left, self._look_for_silence)
        else:
            self.abort(httpx2.ReadTimeout(f"The server was silent for {self._read_s} s."))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, why: httpx2.TransportError) -> None:
        """The first reason stands."""
        if self._failure is None:
            self._failure = why
        self._wake()

    # --- called by the loop ------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._answer.feed(data)
        except NotHttp as error:
            self.abort(httpx2.RemoteProtocolError(str(error)))
            return
        if self._answer.held > HELD_BYTES:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed = True
        self._stop_timer()
        if exc is None:
            self._answer.end()
        self._fail(self._why_lost(exc))
        self._lost(self)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    def _why_lost(self, exc: Exception | None) -> httpx2.TransportError:
        if exc is not None:
            return httpx2.ReadError(str(exc))
        if self._answer.head is None:
            return httpx2.RemoteProtocolError("Server disconnected without sending a response.")
        return httpx2.RemoteProtocolError("The server closed the connection before its answer was whole.")


def _head_of(request: httpx2.Request) -> bytes:
    """Request line and headers. Raises httpx2.LocalProtocolError where a header would end before its end."""
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % header for header in request.headers.raw]
    if any(map(_ENDS_A_HEADER.search, lines)):
        raise httpx2.LocalProtocolError("A header of the request holds a line break.")
    return b"\r\n".join(lines) + b"\r\n\r\n"
