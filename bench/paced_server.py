"""A provider over HTTP that keeps an exact pace: OpenAI's Chat Completions stream, a chunk a token, each at its own due time.

The model says what comes: `count:200:20` is 200 tokens at 20 a second; the end comes a token's time after the last, so that the
answer takes its nominal 10 s. A late token makes none after it late. `GET /` answers `{"latest_ms": …}`: by how much the most
belated chunk since the last such call left after its due time, so that a reader's lag is not taken for its own.

Run as `python -m bench.paced_server`; prints its port. Nothing but what the bench sends it is understood.
"""

import asyncio
import json
import re
from typing import Final

import uvloop

from bench.instant_server import body, choice, chunk

_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
_MODEL = re.compile(rb'"model": ?"count:(\d+):([\d.]+)"')
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_ROLE: Final = body(chunk(choice({"role": "assistant", "content": ""})))
_WORDS: Final = [body(chunk(choice({"content": f" {word}"}))) for word in ("the", "keeper", "of", "light", "waited", "and")]


def _end(tokens: int) -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": tokens, "total_tokens": 9 + tokens}
    return body(chunk(choice({}, "stop")), chunk([], usage), "data: [DONE]\n\n") + b"0\r\n\r\n"


class Pace:
    """What all connections share."""

    def __init__(self) -> None:
        self.latest_s = 0.0


class _Connection(asyncio.Protocol):
    """Answers one request after the other."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, sent = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not blank or len(sent) < (int(length[1]) if length else 0):
            return
        self._received = b""
        if head.startswith(b"GET"):
            self._tell()
        else:
            self._begin(sent)

    def _tell(self) -> None:
        said = json.dumps({"latest_ms": round(self._pace.latest_s * 1000, 3)}).encode()
        self._pace.latest_s = 0.0
        self._transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(said), said))

    def _begin(self, request: bytes) -> None:
        asked = _MODEL.search(request)
        assert asked is not None, "the bench asks for count:<tokens>:<per second>"
        self._tokens, self._per_s = int(asked[1]), float(asked[2])
        self._begun = asyncio.get_running_loop().time()
        self._transport.write(_HEAD + _ROLE)
        self._send(0)

    def _send(self, i: int) -> None:
        """Token number `i`, or what follows the last one; then waits for the next one's time."""
        loop = asyncio.get_running_loop()
        self._pace.latest_s = max(self._pace.latest_s, loop.time() - self._begun - i / self._per_s)
        if i == self._tokens:
            self._timer = None
            self._transport.write(_end(self._tokens))
            return
        self._transport.write(_WORDS[i % len(_WORDS)])
        self._timer = loop.call_at(self._begun + (i + 1) / self._per_s, self._send, i + 1)


async def main() -> None:
    pace = Pace()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(pace), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
