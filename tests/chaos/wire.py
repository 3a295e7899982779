"""A stretch of network between readers and one web process: it carries bytes, until it is cut."""

import asyncio
from collections.abc import Callable
from typing import Self


class Wire:
    """Listens on a port of its own and forwards to another one. Use as `async with`."""

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._ends: set[_End] = set()
        self._connecting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.get_running_loop().create_server(lambda: _End(self._ends, self._accepted), "127.0.0.1", 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for connecting in self._connecting:
            connecting.cancel()
        await asyncio.gather(*self._connecting, return_exceptions=True)
        self.cut()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def cut(self) -> None:
        """Every connection breaks now, in the middle of whatever is on its way."""
        for end in list(self._ends):
            end.abort()

    def _accepted(self, near: "_End") -> None:
        task = asyncio.create_task(self._connect(near))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _connect(self, near: "_End") -> None:
        try:
            _, far = await asyncio.get_running_loop().create_connection(
                lambda: _End(self._ends), "127.0.0.1", self._target_port
            )
        except OSError:  # nobody listens: the caller sees its connection break
            near.abort()
        else:
            near.join(far)


class _End(asyncio.Protocol):
    """One of the two sockets of a connection; what it receives goes out at its peer."""

    def __init__(self, ends: "set[_End]", accepted: "Callable[[_End], None] | None" = None) -> None:
        self._ends = ends
        self._accepted = accepted
        self._peer: _End | None = None
        self._early = b""
        """Received before there was a peer."""

    def join(self, peer: "_End") -> None:
        self._peer, peer._peer = peer, self
        if self._transport.is_closing():
            peer.abort()
        else:
            peer._transport.write(self._early)

    def abort(self) -> None:
        self._transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # a socket's can do both
        self._transport = transport
        self._ends.add(self)
        if self._accepted is not None:
            self._accepted(self)

    def data_received(self, data: bytes) -> None:
        if self._peer is None:
            self._early += data
        else:
            self._peer._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ends.discard(self)
        if self._peer is not None and not self._peer._transport.is_closing():
            # Closed, it still sends what it holds, as a network does; a connection that broke breaks on the other side too.
            if exc is not None:
                self._peer.abort()
            else:
                self._peer._transport.close()

    def pause_writing(self) -> None:
        if self._peer is not None:
            self._peer._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._peer is not None:
            self._peer._transport.resume_reading()
