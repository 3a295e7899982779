"""A server on loopback whose answers are scripts: what the servers of the three wire formats have in common.

A script is a list of steps, looked up by the request's model. Steps that are bytes go out as they stand:

    server.on("cut", text("Hel"), text("lo"), Cut())
    server.on("busy", Status(429, b"…", {"retry-after": "2"}))
    server.on("busy", *answer("then it works"))         # the second request takes the second script, the last one stays
    assert server.requests[0].body["stream"] is True
    assert server.requests[0].left_at is not None       # time.monotonic() at which the client hung up on us

Models without a script: `count:<n>:<per second>` sends n numbered words at that rate (0: as fast as they go out); any other
name is answered with `DEFAULT_TEXT`.
"""

import asyncio
import contextlib
import json
import socket
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import uvicorn

LAST_TURNS = 50
"""Turns of the loop in which a client's half-read streams are closed by Python's own finalizers; five or so are needed."""

DEFAULT_TEXT = "The quick brown fox jumps over the lazy dog."

Asgi = dict[str, Any]


@dataclass(frozen=True)
class Pause:
    """Silence, in seconds; ends early when the client leaves. Before the first bytes, the headers wait too."""

    seconds: float


@dataclass(frozen=True)
class Until:
    """Silence until the event is set; ends early when the client leaves."""

    event: asyncio.Event


@dataclass(frozen=True)
class Stall:
    """Silence until the client leaves; as the first step, before any header."""


@dataclass(frozen=True)
class Cut:
    """The connection is closed without the end of the body; as the first step, before any header."""


@dataclass(frozen=True)
class Status:
    """Another answer than a stream. As the first step only."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


Step = bytes | Pause | Until | Stall | Cut | Status


@dataclass
class Received:
    """One request. Times are `time.monotonic()`, which all processes of a machine share."""

    model: str
    body: dict[str, Any]
    headers: dict[str, str]
    client_port: int
    at: float
    chunks_sent: int = 0
    left_at: float | None = None
    """When the client closed the connection before the answer's end; None where it stayed."""
    done_at: float | None = None
    """When the script had run to its end."""


class ScriptedUpstream(ABC):
    """Runs in the caller's loop, on a port of its own. A subclass is one wire format."""

    path: ClassVar[str]
    """The one path that answers with a stream."""
    content_type: ClassVar[str]

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.requests: list[Received] = []
        self._host = host
        self._scripts: dict[str, deque[list[Step]]] = {}
        # The protocol is named because asyncio sets TCP_NODELAY only then; without it each packet may wait 40 ms for an ACK.
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        self._serving: asyncio.Task[None] | None = None
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        port: int = self._socket.getsockname()[1]
        return port

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @abstractmethod
    def answer(self) -> list[Step]:
        """A whole, undisturbed answer."""

    @abstractmethod
    def counted(self, n: int, per_second: float) -> Iterator[Step]:
        """`n` words, `w0 w1 w2 …`, each its own piece."""

    @abstractmethod
    def not_found(self, path: str) -> Status:
        """What this server says of a path that it does not know."""

    def on(self, model: str, *steps: Step) -> None:
        """The script of the next request for `model`; the last one given stays."""
        self._scripts.setdefault(model, deque()).append(list(steps))

    def of(self, model: str) -> list[Received]:
        """The requests for `model`, oldest first."""
        return [request for request in self.requests if request.model == model]

    async def __aenter__(self) -> Self:
        self._socket.bind((self._host, 0))
        config = uvicorn.Config(
            self._app, interface="asgi3", lifespan="off", log_level="critical", proxy_headers=False, ws="none"
        )
        self._server = _Server(config)
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        await self._server.ready.wait()
        return self

    async def __aexit__(self, *_: object) -> None:
        for answering in self._answering:
            answering.cancel()
        self._server.stop.set()
        if self._serving is not None:
            await self._serving

    async def _app(self, scope: Asgi, receive: Callable[[], Awaitable[Asgi]], send: Callable[[Asgi], Awaitable[None]]) -> None:
        request = await _received(scope, receive)
        self.requests.append(request)
        gone = asyncio.create_task(_wait_gone(receive))
        answering = asyncio.create_task(_Answer(request, send, gone, self.content_type).run(self._steps(scope, request.model)))
        self._answering.add(answering)
        try:
            await asyncio.wait({answering})
            if not answering.cancelled():
                answering.result()
        finally:
            self._answering.discard(answering)
            gone.cancel()

    def _steps(self, scope: Asgi, model: str) -> Iterable[Step]:
        if scope["path"] != self.path:
            return [self.not_found(scope["path"])]
        scripts = self._scripts.get(model)
        if scripts:
            return scripts.popleft() if len(scripts) > 1 else scripts[0]
        if model.startswith("count:"):
            _, n, per_second = model.split(":")
            return self.counted(int(n), float(per_second))
        return self.answer()


def words(whole: str) -> list[str]:
    """Word by word, each with the space that follows it."""
    return [word + " " for word in whole.split(" ")[:-1]] + whole.split(" ")[-1:]


class _Server(uvicorn.Server):
    """Says when it listens, and stops when told, instead of looking every 0.1 s."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready, self.stop = asyncio.Event(), asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def main_loop(self) -> None:
        await self.stop.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cuts what is still open, and gives clients a moment to see it; uvicorn's own takes 0.1 s for that."""
        for server in self.servers:
            server.close()
        for sock in sockets or ():
            sock.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.gather(*self.server_state.tasks)
        for _ in range(LAST_TURNS):
            await asyncio.sleep(0)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None: signals belong to the test's own process."""
        yield


async def _received(scope: Asgi, receive: Callable[[], Awaitable[Asgi]]) -> Received:
    at, raw, more = time.monotonic(), b"", True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
    body = json.loads(raw) if raw else {}
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    return Received(body.get("model", ""), body, headers, scope["client"][1], at)


async def _wait_gone(receive: Callable[[], Awaitable[Asgi]]) -> float:
    """Returns when the client closed the connection, with the time at which it did."""
    while (await receive())["type"] != "http.disconnect":
        pass
    return time.monotonic()


class _Answer:
    """One script, run against one connection, until its end or until the client leaves."""

    def __init__(
        self, request: Received, send: Callable[[Asgi], Awaitable[None]], gone: "asyncio.Task[float]", content_type: str
    ) -> None:
        self._content_type = content_type
        self._request = request
        self._send = send
        self._gone = gone
        self._opened = False

    async def run(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, Cut):
                self._send.__self__.transport.abort()  # type: ignore[attr-defined]  # uvicorn's own cycle object
                return
            if isinstance(step, Status):
                await self._start(step.status, {"content-type": "application/json", **step.headers})
                await self._body(step.body, more=False)
                return
            await self._stream(step)
            if self._gone.done():
                self._request.left_at = self._gone.result()
                return
        await self._open()
        await self._body(b"", more=False)
        self._request.done_at = time.monotonic()

    async def _stream(self, step: bytes | Pause | Until | Stall) -> None:
        if isinstance(step, bytes):
            await self._open()
            await self._body(step)
            self._request.chunks_sent += 1
        elif isinstance(step, Until):
            waiting = asyncio.create_task(step.event.wait())
            await asyncio.wait({self._gone, waiting}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        else:
            await asyncio.wait({self._gone}, timeout=step.seconds if isinstance(step, Pause) else None)

    async def _open(self) -> None:
        if not self._opened:
            await self._start(200, {"content-type": self._content_type})

    async def _start(self, status: int, headers: Mapping[str, str]) -> None:
        raw = [(name.encode(), value.encode()) for name, value in {"x-request-id": "req_test", **headers}.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        self._opened = True

    async def _body(self, data: bytes, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})
