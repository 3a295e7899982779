"""A server on loopback that speaks Anthropic's Messages stream, as its public documentation shows it.

async with AnthropicServer() as server:
    server.on("cut", start(), *block("Hel", "lo"), Cut())       # scripts and steps: see upstream.py
    … ANTHROPIC_BASE_URL=server.url …
"""

import json
from collections.abc import Iterator
from typing import Any

from tests.support.upstream import DEFAULT_TEXT, Pause, ScriptedUpstream, Status, Step, words

PING = b'event: ping\ndata: {"type": "ping"}\n\n'
STOP = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'


def event(type: str, **fields: Any) -> bytes:
    """One named event of compact JSON, which repeats the name."""
    data = json.dumps({"type": type, **fields}, separators=(",", ":"))
    return f"event: {type}\ndata: {data}\n\n".encode()


def start(input_tokens: int = 9, **usage: int) -> bytes:
    counts: dict[str, Any] = {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
    }
    message: dict[str, Any] = {
        "id": "msg_01XFDUDYJgAACzvnptvVoYEL",
        "type": "message",
        "role": "assistant",
        "model": "claude-sonnet-5-5",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": counts | {"service_tier": "standard"} | usage,
    }
    return event("message_start", message=message)


def block_start(index: int = 0, **content_block: Any) -> bytes:
    return event("content_block_start", index=index, content_block=content_block or {"type": "text", "text": ""})


def delta(index: int = 0, **fields: Any) -> bytes:
    return event("content_block_delta", index=index, delta=fields)


def block_stop(index: int = 0) -> bytes:
    return event("content_block_stop", index=index)


def text(piece: str, index: int = 0) -> bytes:
    return delta(index, type="text_delta", text=piece)


def block(*pieces: str, index: int = 0) -> list[bytes]:
    """A whole text block."""
    return [block_start(index), *(text(piece, index) for piece in pieces), block_stop(index)]


def thinking(*pieces: str, index: int = 0) -> list[bytes]:
    """A whole thought, with its signature."""
    opening = block_start(index, type="thinking", thinking="", signature="")
    thoughts = [delta(index, type="thinking_delta", thinking=piece) for piece in pieces]
    return [
        opening,
        *thoughts,
        delta(index, type="signature_delta", signature="EqQBCgIYAhIM1gbcDa9GJwZA2b3h"),
        block_stop(index),
    ]


def tool_use(id: str, name: str, *pieces: str, index: int = 0) -> list[bytes]:
    """A whole tool call; the first piece is empty, as it is there."""
    opening = block_start(index, type="tool_use", id=id, name=name, input={})
    return [
        opening,
        *(delta(index, type="input_json_delta", partial_json=piece) for piece in ("", *pieces)),
        block_stop(index),
    ]


def message_delta(stop_reason: str | None = "end_turn", output_tokens: int = 1, **more: Any) -> bytes:
    """Why it stopped, and the running total of tokens."""
    reason = {"stop_reason": stop_reason, "stop_sequence": None, "stop_details": None}
    return event("message_delta", delta=reason | more, usage={"output_tokens": output_tokens})


def error_event(message: str, type: str = "overloaded_error") -> bytes:
    """An error in mid-stream."""
    return event("error", error={"type": type, "message": message}, request_id="req_test")


def error_body(message: str, type: str = "invalid_request_error") -> bytes:
    return json.dumps({"type": "error", "error": {"type": type, "message": message}, "request_id": "req_test"}).encode()


def answer(whole: str = DEFAULT_TEXT, reason: str = "end_turn") -> list[Step]:
    """A whole, undisturbed answer, word by word."""
    pieces = words(whole)
    return [start(), block_start(), PING, *map(text, pieces), block_stop(), message_delta(reason, len(pieces)), STOP]


def counted(n: int, per_second: float) -> Iterator[Step]:
    """`n` words, `w0 w1 w2 …`, each its own delta."""
    yield from (start(), block_start())
    for i in range(n):
        if per_second:
            yield Pause(1 / per_second)
        yield text(f"w{i} ")
    yield from (block_stop(), message_delta(output_tokens=n), STOP)


class AnthropicServer(ScriptedUpstream):
    path = "/v1/messages"
    content_type = "text/event-stream; charset=utf-8"

    @property
    def url(self) -> str:
        """What ANTHROPIC_BASE_URL is to be."""
        return self.origin

    def answer(self) -> list[Step]:
        return answer()

    def counted(self, n: int, per_second: float) -> Iterator[Step]:
        return counted(n, per_second)

    def not_found(self, path: str) -> Status:
        return Status(404, error_body(f"Not found: {path}", "not_found_error"))
