"""How the SDKs reach providers' servers: httpx2's transport, made for hundreds of streams at once.

httpx2's own looks through all its connections whenever a call begins or ends, and spends 100 µs of CPU on every piece of every
stream: most of what a token costs a worker (docs/decisions/0037). This one keeps what it offers here: HTTP/1.1 over TCP or TLS,
idle connections used again, timeouts, and the same errors.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Final, NamedTuple
from urllib.request import getproxies

import aiohappyeyeballs
import httpx2

from worker.providers.http_connection import Connection
from worker.providers.upstream import IDLE_CONNECTIONS

IDLE_S: Final = 5.0
"""As httpx2's own: servers close an idle connection after anything from 5 s on, and a call may not meet that."""

_FAMILY_HEAD_START_S: Final = 0.25
"""How long an address is tried alone before the next one of the same name is tried beside it (RFC 8305, section 5)."""

_KEEPALIVE_S: Final = 60
_KEEPALIVE_PROBES: Final = 5


class Origin(NamedTuple):
    """Where a request goes."""

    tls: bool
    host: str
    port: int


def transport() -> httpx2.AsyncBaseTransport | None:
    """What an SDK's client is given; None where the environment names a proxy: then httpx2's own, which knows them all."""
    return None if getproxies().keys() & {"http", "https", "all"} else Transport()


class Transport(httpx2.AsyncBaseTransport):
    """Any number of connections; see the module."""

    def __init__(self) -> None:
        self._tls = httpx2.create_ssl_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._busy: set[Connection] = set()
        self._idle: dict[Connection, _Idle] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """See `httpx2.AsyncBaseTransport`. Raises httpx2.TransportError."""
        origin = _origin_of(request.url)
        timeouts = request.extensions.get("timeout", {})
        connection = self._idle_one(origin) or await self._connect(origin, timeouts.get("connect"))
        self._busy.add(connection)
        try:
            head = await connection.begin(request, timeouts.get("read"), timeouts.get("write"))
        except BaseException:
            connection.abort()
            raise
        return httpx2.Response(
            status_code=head.status,
            headers=head.headers,
            stream=_Body(self, origin, connection),
            extensions={"http_version": head.version, "reason_phrase": head.reason},
        )

    async def aclose(self) -> None:
        """Closes all connections; streams that are open fail with `httpx2.ReadError`."""
        for connection in (*self._busy, *self._idle):
            connection.abort(httpx2.ReadError("The client was closed."))

    def give_back(self, origin: Origin, connection: Connection) -> None:
        """The connection's answer has been read, or is not wanted any more."""
        if connection not in self._busy:
            return
        if not connection.reusable or len(self._idle) >= IDLE_CONNECTIONS:
            connection.abort()
            return
        self._busy.discard(connection)
        expiry = asyncio.get_running_loop().call_later(IDLE_S, connection.abort)
        self._idle[connection] = _Idle(origin, expiry)

    def _idle_one(self, origin: Origin) -> Connection | None:
        """The one that was used last: the others may then grow old."""
        for connection, idle in reversed(self._idle.items()):
            if idle.origin == origin and not connection.stale:
                del self._idle[connection]
                idle.expiry.cancel()
                return connection
        return None

    async def _connect(self, origin: Origin, connect_s: float | None) -> Connection:
        try:
            async with asyncio.timeout(connect_s):
                return await self._open(origin)
        except TimeoutError:
            raise httpx2.ConnectTimeout(f"No connection to {origin.host} within {connect_s} s.") from None
        except OSError as error:  # ssl.SSLError is one
            raise httpx2.ConnectError(str(error)) from error

    async def _open(self, origin: Origin) -> Connection:
        loop = asyncio.get_running_loop()
        addresses = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        connected = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_FAMILY_HEAD_START_S)
        try:
            _set_options(connected)
            tls, name = (self._tls, origin.host) if origin.tls else (None, None)
            _, connection = await loop.create_connection(
                lambda: Connection(self._lost), sock=connected, ssl=tls, server_hostname=name
            )
        except BaseException:
            connected.close()
            raise
        return connection

    def _lost(self, connection: Connection) -> None:
        self._busy.discard(connection)
        idle = self._idle.pop(connection, None)
        if idle is not None:
            idle.expiry.cancel()


class _Idle(NamedTuple):
    origin: Origin
    expiry: asyncio.TimerHandle


class _Body(httpx2.AsyncByteStream):
    """An answer's body. Closed before its end it takes the connection with it, which is how a provider is stopped."""

    def __init__(self, transport: Transport, origin: Origin, connection: Connection) -> None:
        self._transport = transport
        self._origin = origin
        self._connection = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while piece := await self._connection.read():
            yield piece

    async def aclose(self) -> None:
        self._transport.give_back(self._origin, self._connection)


def _origin_of(url: httpx2.URL) -> Origin:
    if url.scheme not in ("http", "https"):
        raise httpx2.UnsupportedProtocol(f"{url.scheme or 'no protocol'} is none that a provider is reached by.")
    tls = url.scheme == "https"
    return Origin(tls, url.raw_host.decode("ascii"), url.port or (443 if tls else 80))


def _set_options(connected: socket.socket) -> None:
    """Small writes leave at once; a server that is gone without a word is noticed within minutes, whatever the timeouts."""
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("IDLE", _KEEPALIVE_S), ("INTVL", _KEEPALIVE_S), ("CNT", _KEEPALIVE_PROBES)):
        if hasattr(socket, f"TCP_KEEP{name}"):  # not everywhere under these names
            connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, f"TCP_KEEP{name}"), value)
