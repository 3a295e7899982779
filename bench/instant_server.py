"""A provider over HTTP that answers at once: OpenAI's Chat Completions stream; the first token in one write, the rest a
little later, as providers send them.

Run as `python -m bench.instant_server`; prints its port. Nothing but what the bench sends it is understood.
"""

import asyncio
import json
import re
from typing import Final

import uvloop

TOKENS: Final = 8
REST_S: Final = 0.01
"""From the first token to the rest."""
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


def chunk(choices: list[object], usage: object = None) -> str:
    """One event of the stream."""
    head = {"id": "chatcmpl-bench", "object": "chat.completion.chunk", "created": 1741570283, "model": "instant"}
    return "data: " + json.dumps({**head, "choices": choices, "usage": usage}) + "\n\n"


def choice(delta: dict[str, str], finish_reason: str | None = None) -> list[object]:
    """The one choice of a chunk."""
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}]


def _first() -> bytes:
    """Head, role and first token."""
    head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + body(chunk(choice({"role": "assistant", "content": ""})), chunk(choice({"content": "word0 "})))


def _rest() -> bytes:
    usage = {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": 9 + TOKENS}
    tokens = [chunk(choice({"content": f"word{i} "})) for i in range(1, TOKENS)]
    return body(*tokens, chunk(choice({}, "stop")), chunk([], usage), "data: [DONE]\n\n") + b"0\r\n\r\n"


def body(*events: str) -> bytes:
    """One chunk of a chunked body."""
    data = "".join(events).encode()
    return b"%x\r\n%s\r\n" % (len(data), data)


class _Connection(asyncio.Protocol):
    """Answers each request once its body is whole."""

    FIRST: Final = _first()
    REST: Final = _rest()

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvloop's is no subclass
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, sent = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if blank and length is not None and len(sent) >= int(length[1]):
            self._received = b""
            self._transport.write(self.FIRST)
            asyncio.get_running_loop().call_later(REST_S, self._transport.write, self.REST)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(_Connection, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1])
    await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
