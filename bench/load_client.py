"""The load client for machines without a C compiler: the same arguments, the same output as load_client.c, and Python's limits.

At some 100,000 events a second it is busy itself, and the latencies it sees are its own.
"""

import asyncio
import json
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import httptools
import uvloop

from cli.bench_runs import percentile

_STAMP: Final = re.compile(rb"@(\d{16})")
_N: Final = re.compile(rb',"n":(\d+)\}$')
_ID: Final = re.compile(rb"id: ?(\d{1,6})-(\d+)$")
"""Of our protocol's form: what Redis makes of its clock is longer."""


class _Reader(asyncio.Protocol):
    """One connection, parsed by httptools. `crowd` gets what all of them see."""

    def __init__(self, crowd: "Crowd", request: bytes) -> None:
        self._crowd = crowd
        self._request = request
        self._parser = httptools.HttpResponseParser(self)
        self._cut = b""
        self._before: tuple[int, int] | None = None
        self._id: tuple[int, int] | None = None
        self._n, self._is_token, self._count = 0, False, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        self._asked = time.monotonic_ns() // 1000
        transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.lost()

    def data_received(self, data: bytes) -> None:
        self._now = time.monotonic_ns() // 1000
        self._parser.feed_data(data)

    def on_headers_complete(self) -> None:
        if self._parser.get_status_code() != 200:
            sys.exit(f"answered {self._parser.get_status_code()}")
        self._crowd.answered()

    def on_body(self, body: bytes) -> None:
        *lines, self._cut = (self._cut + body).split(b"\n")
        for line in lines:
            self._take_line(line.rstrip(b"\r"))

    def _take_line(self, line: bytes) -> None:
        if not line:
            self._end_frame()
        elif line.startswith(b"data:"):
            n = _N.search(line)
            self._n, self._is_token = int(n[1]) if n else 1, b'"token"' in line[:40]
            stamps = _STAMP.findall(line)
            self._crowd.waits += [self._now - int(at) for at in stamps]
            if not self._crowd.counts_tokens:
                self._counts(len(stamps))
        elif (found := _ID.match(line)) is not None:
            self._id = (int(found[1]), int(found[2]))

    def _end_frame(self) -> None:
        """A frame is complete: does it follow the one before, and what does it count?"""
        if not self._n:
            return
        self._crowd.frames += 1
        if self._id is not None:
            if self._before is not None and self._before[0] == self._id[0] and self._before[1] + self._n != self._id[1]:
                self._crowd.gaps += 1
            self._before, self._id = self._id, None
        if self._crowd.counts_tokens and self._is_token:
            self._counts(self._n)
        self._n = 0

    def _counts(self, n: int) -> None:
        before, self._count = self._count, self._count + n
        self._crowd.count(n, self._now)
        if before < self._crowd.events_each <= self._count:
            self._crowd.has_all(self._now - self._asked)


class Crowd:
    """All readers together. Times are microseconds."""

    def __init__(self, readers: int, events: int, *, counts_tokens: bool) -> None:
        self.counts_tokens = counts_tokens
        self.events_each = events
        self.waits: list[int] = []
        self.frames = self.gaps = self.events = 0
        self.connected, self.over = asyncio.Event(), asyncio.Event()
        self._dones: list[int] = []
        self._readers, self._unanswered, self._left = readers, readers, readers
        self._first_at = self._last_at = 0
        self._begun = time.monotonic()

    def answered(self) -> None:
        self._unanswered -= 1
        if not self._unanswered:
            self._connect_s = time.monotonic() - self._begun
            self.connected.set()

    def lost(self) -> None:
        if self._unanswered:
            sys.exit("a connection was closed without an answer")
        self._left -= 1
        if not self._left:
            self.over.set()

    def count(self, n: int, now: int) -> None:
        self.events += n
        self._last_at = now
        self._first_at = self._first_at or now

    def has_all(self, took: int) -> None:
        self._dones.append(took)
        if len(self._dones) == self._readers:
            self.over.set()

    def result(self) -> dict[str, float]:
        return {
            "events": self.events,
            "wanted": self._readers * self.events_each,
            "frames": self.frames,
            "gaps": self.gaps,
            "span_s": (self._last_at - self._first_at) / 1e6,
            **_spread("", self.waits),
            "connect_per_s": self._readers / self._connect_s,
            "done": len(self._dones),
            **_spread("done_", self._dones),
        }


def _spread(name: str, took: Sequence[int]) -> dict[str, float]:
    return {f"{name}{p}_ms": percentile(took, q) / 1000 if took else -1.0 for p, q in (("p50", 50), ("p99", 99), ("max", 100))}


async def main(port: int, count: str, readers: int, events: int, seconds: float, paths: Sequence[str]) -> None:
    crowd = Crowd(readers, events, counts_tokens=count == "tokens")
    loop = asyncio.get_running_loop()
    for i in range(readers):
        path = paths[i % len(paths)]
        request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
        await loop.create_connection(lambda request=request: _Reader(crowd, request), "127.0.0.1", port)  # type: ignore[misc]
    await crowd.connected.wait()
    print("connected", flush=True)
    await asyncio.wait([asyncio.ensure_future(crowd.over.wait())], timeout=seconds)
    print(json.dumps(crowd.result()), flush=True)
    await asyncio.Event().wait()  # until killed, as the one in C


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        port, count, readers, events, seconds, paths = sys.argv[1:]
        runner.run(main(int(port), count, int(readers), int(events), float(seconds), Path(paths).read_text().split()))
