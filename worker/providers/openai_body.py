"""The body of a Chat Completions stream, from bytes to plain JSON. No I/O of its own.

    bytes, cut anywhere ──EventData──▶ the `data` of each event ──▶ a chunk as JSON ──ChunkReader──▶ Token … Usage Finish

The SDK makes the call and is then bypassed: it would make an object of every chunk, by its type's annotations, which takes
fifty times as long as all of this (docs/decisions/0023).
"""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Final

import httpx2
import msgspec
import openai

_END: Final = b"[DONE]"


class EventData:
    """Bytes as they come from the socket, to the `data` of each whole event. Comments and other fields are left out."""

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, piece: bytes) -> list[bytes]:
        """What became whole with `piece`. An event that the stream ends in is none (the HTML standard, 9.2.6)."""
        text = self._rest + piece
        # A CR at the very end may be the first half of a CRLF.
        end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, -1)) + 1
        self._rest = text[end:]
        whole: list[bytes] = []
        for line in text[:end].splitlines():
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                whole.append(b"\n".join(self._data))
                self._data = []
        return whole


async def chunks_of(body: AsyncIterator[bytes], request: httpx2.Request) -> AsyncGenerator[Any, None]:
    """The chunks before `[DONE]`, as whatever JSON they are. What follows it stays in `body`.

    Raises:
        openai.APIError: the server says that it failed; as the SDK raises it.
        json.JSONDecodeError, UnicodeDecodeError: an event that is no JSON.
    """
    events = EventData()
    async for piece in body:
        for data in events.feed(piece):
            if data.startswith(_END):
                return
            chunk = _decoded(data)
            if isinstance(chunk, dict) and (error := chunk.get("error")):
                raise openai.APIError("an error event in mid-stream", request, body=error)
            yield chunk


def _decoded(data: bytes) -> Any:
    try:
        return msgspec.json.decode(data)
    except msgspec.DecodeError:
        # It is stricter than what servers send: half of an escaped surrogate pair (see `WholeText`), NaN.
        return json.loads(data)
