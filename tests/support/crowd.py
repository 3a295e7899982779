"""Readers by the thousand, as bare sockets in a process of their own: `python -m tests.support.crowd HOW PORT PATH N`.

    follow    to the terminal event, through any number of lost connections; what it got is proved from the ids
    deaf      asks for a stream and never reads it
    trickle   reads a byte a second
    leave     connects, asks and is gone, N times

Prints `ready` when all have asked (`leave`: when all are gone), and for `follow` one line of JSON at the end. Texts that hold a
time, `@` and 16 digits of `time.monotonic()` in microseconds, tell how late they came. Ends by itself, or by SIGTERM.
"""

import asyncio
import json
import re
import resource
import socket
import sys
import time
from collections.abc import Coroutine
from typing import Final

import uvloop

from cli.bench_runs import percentile

_FRAME: Final = re.compile(rb"id: (\d+)-(\d+)\ndata: ([^\n]*)\n\n")
"""A whole frame; it is never cut by the chunks of the response, only by what one read brings."""
_RETRY: Final = re.compile(rb"retry: (\d+)\n")
_N: Final = re.compile(rb'"n":(\d+)')
_STAMP: Final = re.compile(rb"@(\d{16})")
_AT_ONCE: Final = 100
"""Connections that are opened together; the rest wait their turn."""


class Follower(asyncio.Protocol):
    """One reader over all its connections."""

    def __init__(self, crowd: "Crowd") -> None:
        self.attempt, self.seq = 0, 0
        self.ended = False
        self._crowd = crowd
        self._rest = b""
        self._retry_s = 1.0

    def connect(self) -> None:
        self._crowd.spawn(self._connect())

    async def _connect(self) -> None:
        try:
            await asyncio.get_running_loop().create_connection(lambda: self, "127.0.0.1", self._crowd.port)
        except OSError:
            self._come_again()

    def _come_again(self) -> None:
        asyncio.get_running_loop().call_later(self._retry_s, self.connect)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        self._rest = b""
        self._answered = False
        self._crowd.connections += 1
        transport.write(_request(self._crowd.port, self._crowd.path, f"Last-Event-ID: {self.attempt}-{self.seq}\r\n"))

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns() // 1000
        if not self._answered:
            self._answered = True
            self._crowd.answered(self)
        whole, end = self._rest + data, 0
        if retry := _RETRY.search(whole):
            self._retry_s = int(retry[1]) / 1000
        for frame in _FRAME.finditer(whole):
            end = frame.end()
            self._take(int(frame[1]), int(frame[2]), frame[3])
            self._crowd.waits += [now - int(stamp) for stamp in _STAMP.findall(frame[3])]
        self._rest = whole[end:]

    def _take(self, attempt: int, seq: int, data: bytes) -> None:
        """Protocol 3: within an attempt, `seq == previous seq + n`."""
        n = int(found[1]) if (found := _N.search(data)) else 1
        gap = seq - n - (self.seq if attempt == self.attempt else -1)
        self._crowd.lost += max(gap, 0)
        self._crowd.doubled += max(-gap, 0)
        self.attempt, self.seq = attempt, seq
        if data.startswith((b'{"type":"done"', b'{"type":"error"', b'{"type":"cancelled"')):
            self.ended = True
            self._crowd.end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.ended:
            self._come_again()


class Crowd:
    """All followers together. `back_at`: when each had its last first answer, `time.monotonic()`."""

    def __init__(self, port: int, path: str, readers: int) -> None:
        self.port, self.path, self.readers = port, path, readers
        self.connections = self.lost = self.doubled = 0
        self.waits: list[int] = []
        self.back_at: dict[Follower, float] = {}
        self.ready, self.over = asyncio.Event(), asyncio.Event()
        self._left = readers
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        followers = [Follower(self) for _ in range(self.readers)]
        for start in range(0, self.readers, _AT_ONCE):
            await asyncio.gather(*(follower._connect() for follower in followers[start : start + _AT_ONCE]))
        await self.ready.wait()
        print("ready", flush=True)
        await self.over.wait()
        print(json.dumps(self.result()), flush=True)

    def spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def answered(self, follower: Follower) -> None:
        self.back_at[follower] = time.monotonic()
        if len(self.back_at) == self.readers:
            self.ready.set()

    def end(self) -> None:
        self._left -= 1
        if not self._left:
            self.over.set()

    def result(self) -> dict[str, float]:
        late = {f"p{p}_ms": percentile(self.waits, p) / 1000 for p in (50, 99)} if self.waits else {}
        counts = {"lost": self.lost, "doubled": self.doubled, "connections": self.connections}
        return {"readers": self.readers, "back_at": max(self.back_at.values()), **counts, **late}


def _request(port: int, path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n{more}\r\n".encode()


def _ask(port: int, path: str) -> socket.socket:
    """A connection that asks for a stream, with room for little of it."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    sock.sendall(_request(port, path))
    return sock


def misuse(how: str, port: int, path: str, n: int) -> None:
    if how == "leave":
        for _ in range(n):
            _ask(port, path).close()
    else:
        socks = [_ask(port, path) for _ in range(n)]
    print("ready", flush=True)
    while how == "trickle":
        time.sleep(1)
        socks = [sock for sock in socks if sock.recv(1)]
    if how == "deaf":
        time.sleep(3600)


def main(how: str, port: int, path: str, n: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if how != "follow":
        misuse(how, port, path, n)
        return
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(Crowd(port, path, n).run())


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
