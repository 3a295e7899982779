"""The load client for machines without a C compiler: the same arguments, the same output as load_client.c, and Python's limits.

At some 100,000 events a second it is busy itself, and the latencies it sees are its own.
"""

import asyncio
import json
import re
import sys
import time
from typing import Final

import uvloop

from cli.bench_runs import percentile

_STAMP: Final = re.compile(rb"@(\d{16})")
_STAMP_BYTES: Final = 17


class _Reader(asyncio.Protocol):
    """One connection. `crowd` gets what all of them see."""

    def __init__(self, crowd: "Crowd", request: bytes) -> None:
        self._crowd = crowd
        self._request = request
        self._rest = b""
        self._answered = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns() // 1000
        if not self._answered:
            self._answered = True
            self._crowd.answered()
        data = self._rest + data
        cut = data.rfind(b"@", max(0, len(data) - _STAMP_BYTES + 1))
        self._rest = data[cut:] if cut >= 0 else b""
        self._crowd.take([now - int(at) for at in _STAMP.findall(data)])


class Crowd:
    """All readers together: how many have an answer, and how old each event was when it came, in microseconds."""

    def __init__(self, readers: int, events: int) -> None:
        self.wanted = readers * events
        self.waits: list[int] = []
        self.connected, self.complete = asyncio.Event(), asyncio.Event()
        self._readers = readers

    def answered(self) -> None:
        self._readers -= 1
        if not self._readers:
            self.connected.set()

    def take(self, waits: list[int]) -> None:
        self.waits += waits
        if len(self.waits) >= self.wanted:
            self.complete.set()

    def result(self) -> dict[str, float]:
        ms = {f"p{p}_ms": percentile(self.waits, p) / 1000 if self.waits else -1.0 for p in (50, 99)}
        return {"events": len(self.waits), "wanted": self.wanted, **ms, "max_ms": max(self.waits, default=-1000) / 1000}


async def main(port: int, path: str, readers: int, events: int, seconds: float) -> None:
    crowd = Crowd(readers, events)
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    for _ in range(readers):
        await loop.create_connection(lambda: _Reader(crowd, request), "127.0.0.1", port)
    await crowd.connected.wait()
    print("connected", flush=True)
    await asyncio.wait([asyncio.ensure_future(crowd.complete.wait())], timeout=seconds)
    print(json.dumps(crowd.result()))


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), float(sys.argv[5])))
