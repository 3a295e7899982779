"""uvicorn, set up for event streams: sockets that notice dead peers, and a shutdown that sends readers away first."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from shared.errors import ConfigurationError
from web.context import Context
from web.lent import DEPARTURES, PUT, SEND, TRANSPORT

_SEND_BUFFER: Final = 128 * 1024
"""Bytes the kernel may hold for a reader. Left alone it grows to megabytes before a stalled reader shows."""
_DEAD_PEER_MS: Final = 30_000
"""TCP gives a peer up after so long without an acknowledgement; by default it takes a quarter of an hour."""
_DATE_S: Final = 1.0
_LOOK_S: Final = 0.1
"""How often a stopping server looks whether it was told so twice; uvicorn has it so."""


class StreamProtocol(HttpToolsProtocol):
    """uvicorn's own HTTP protocol, with the socket set up, lent to the request, and little kept of it (decisions/0035)."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.app = self._serve

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self.flow = Flow(transport)
        sock: socket.socket | None = transport.get_extra_info("socket")
        if sock is None:
            return
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _DEAD_PEER_MS)

    async def _serve(self, scope: Any, receive: Any, send: Any) -> None:
        """The outermost layer of the application. Lends a request what an event stream needs, and where one stays connected,
        waits with it until the reader leaves: the layers have returned by then, and nothing of the request is kept."""
        departures: list[Callable[[], None]] = []
        extensions = scope.setdefault("extensions", {})
        extensions[TRANSPORT], extensions[SEND], extensions[DEPARTURES] = self.transport, send, departures
        extensions[PUT] = partial(_put, send.__self__)  # not self.cycle, which may be that of the next request by now
        try:
            await self.config.loaded_app(scope, receive, send)
            if departures:
                _forget(scope)
                while (await receive())["type"] != "http.disconnect":
                    pass
        finally:
            for call in departures:
                call()


class Chunk:
    """A piece of a body, framed for HTTP/1.1: the last one, for what goes to a thousand readers in a row is framed once."""

    __slots__ = ("body", "framed")

    def __init__(self) -> None:
        self.take(b"")

    def take(self, body: bytes) -> None:
        self.body = body
        self.framed = b"%x\r\n%b\r\n" % (len(body), body)


_CHUNK: Final = Chunk()


def _put(cycle: RequestResponseCycle, body: bytes) -> bool:
    """What `cycle.send` does with a piece of a body, less what cannot be so in an event stream. See `web/lent.py`."""
    if cycle.flow.write_paused or cycle.disconnected or cycle.response_complete or not cycle.chunked_encoding:
        return False
    if body is not _CHUNK.body:
        _CHUNK.take(body)
    cycle.transport.write(_CHUNK.framed)
    return True


def _forget(scope: dict[str, Any]) -> None:
    """Empties a request's scope, which its connection holds, but for the one thing that uvicorn's `send` looks at."""
    method = scope["method"]
    scope["headers"].clear()
    scope.clear()
    scope["method"] = method


class Flow(FlowControl):
    """uvicorn's flow control, whose event, most of a kilobyte, is made for those connections only that were ever paused."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.read_paused = False
        self.write_paused = False

    def pause_writing(self) -> None:
        if not self.write_paused:
            self.write_paused = True
            self._is_writable_event = asyncio.Event()


class StreamServer(uvicorn.Server):
    """Tells balancers, and then readers, to go elsewhere before it closes anything."""

    def __init__(self, config: uvicorn.Config, context: Context) -> None:
        super().__init__(config)
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()

    async def main_loop(self) -> None:
        """Until told to stop. uvicorn's own looks for that ten times a second, which is most of what an idle process costs."""
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):  # which also sets the `Date` of the next second's answers
            with suppress(TimeoutError):
                async with asyncio.timeout(_DATE_S - self._loop.time() % _DATE_S):  # on the beat, as the hub's timer is
                    await self._told.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._loop is not None:  # else it has not begun to wait
            self._loop.call_soon_threadsafe(self._told.set)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._context.leaving.set()
        await self._serve_on(self._context.settings.lame_duck_s)
        self._context.hub.drain()
        await super().shutdown(sockets)

    async def _serve_on(self, seconds: float) -> None:
        """Serves whoever still comes, until balancers have had the time to notice; a second Ctrl-C ends it."""
        for _ in range(round(seconds / _LOOK_S)):
            if self.force_exit:
                return
            await asyncio.sleep(_LOOK_S)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, bound before anything else is started. Port 0 takes a free one.

    Raises:
        ConfigurationError: taken, forbidden, or no such address.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only then; without it a first token waits 40 ms for an ACK.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        sock.listen(2048)
    except OSError as error:
        sock.close()
        raise ConfigurationError(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another with --port.") from None
    sock.set_inheritable(True)
    return sock
