"""An event stream as it comes over the wire, frame by frame: for tests that look at what a reader is sent."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

PATIENCE_S = 8.0
"""Longest wait for a frame that is bound to come."""


class OpenStream:
    """One response. `raw` is every byte so far, `frames` every `data:` frame: its JSON, with the event's `id` put in."""

    def __init__(self, response: httpx2.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self.raw = b""
        self.frames: list[dict[str, Any]] = []
        self._chunks = response.aiter_bytes()
        self._rest = b""
        self._next = 0

    async def frame(self) -> dict[str, Any]:
        """The next frame."""
        while self._next == len(self.frames):
            assert await self._read(), f"the stream ended after {self.frames[-3:]}"
        self._next += 1
        return self.frames[self._next - 1]

    async def until(self, kind: str) -> dict[str, Any]:
        """The next frame of a type."""
        while True:
            frame = await self.frame()
            if frame["type"] == kind:
                return frame

    async def until_id(self, event_id: object) -> dict[str, Any]:
        """The frame that brings the reader to this cursor."""
        while True:
            frame = await self.frame()
            if frame.get("id") == str(event_id):
                return frame

    async def until_raw(self, text: bytes) -> None:
        """Returns once these bytes came."""
        while text not in self.raw:
            assert await self._read(), f"the stream ended without {text!r}"

    async def to_end(self) -> list[dict[str, Any]]:
        """All frames, once the server has ended the response as it should."""
        while await self._read():
            pass
        assert not self._rest, f"half a frame: {self._rest!r}"
        self._next = len(self.frames)
        return self.frames

    async def _read(self) -> bool:
        async with asyncio.timeout(PATIENCE_S):
            chunk = await anext(self._chunks, b"")
        self.raw += chunk
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        self.frames += [parse_block(block) for block in blocks if b"data: " in block]
        return bool(chunk)


def parse_block(block: bytes) -> dict[str, Any]:
    """The lines of one frame. A tool call's own `id` becomes `call_id`."""
    lines = dict(line.split(b": ", 1) for line in block.split(b"\n") if line)
    data: dict[str, Any] = json.loads(lines[b"data"])
    if "id" in data:
        data["call_id"] = data.pop("id")
    return data | ({"id": lines[b"id"].decode()} if b"id" in lines else {})


@asynccontextmanager
async def open_stream(
    client: httpx2.AsyncClient, job_id: str, cursor: object = None, **query: object
) -> AsyncIterator[OpenStream]:
    """GET …/events with the cursor in the header."""
    headers = {} if cursor is None else {"last-event-id": str(cursor)}
    params = {name: str(value) for name, value in query.items()}
    async with client.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers, params=params) as response:
        stream = OpenStream(response)
        try:
            yield stream
        finally:
            with contextlib.suppress(RuntimeError):  # a read that timed out has closed it already
                await stream._chunks.aclose()


async def read_all(client: httpx2.AsyncClient, job_id: str, cursor: object = None, **query: object) -> list[dict[str, Any]]:
    """Every frame of a stream that ends by itself."""
    async with open_stream(client, job_id, cursor, **query) as stream:
        assert stream.status == 200, stream.status
        return await stream.to_end()


def text_of(frames: Iterable[dict[str, Any]]) -> str:
    """The joined text of tokens."""
    return "".join(frame["text"] for frame in frames if frame["type"] == "token")


def ids_of(frames: Iterable[dict[str, Any]]) -> list[str]:
    return [frame["id"] for frame in frames if "id" in frame]
