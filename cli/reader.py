"""Follows one job's event stream to its end, through any number of lost connections (docs/PROTOCOL.md, section 4).
One file that needs only httpx2, made to be copied:

    reader = JobReader("http://127.0.0.1:8000", job_id)
    async for frame in reader:
        if frame["type"] == "token":
            print(frame["text"], end="", flush=True)
    print(reader.terminal, reader.lost, reader.doubled)
"""

import asyncio
import json
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing, nullcontext, suppress
from typing import Any
from urllib.parse import quote

import httpx2


class StreamRefused(Exception):
    """The answer is final, coming again would not help. `problem` is the server's problem+json."""

    def __init__(self, status: int, problem: dict[str, Any]) -> None:
        super().__init__(problem.get("detail") or problem.get("title") or f"HTTP {status}, not an event stream")
        self.status, self.problem = status, problem


class StreamLost(Exception):
    """No connection brought anything for `give_up_after_s`. The cursor still stands: a later reader can go on."""


async def sse_frames(chunks: AsyncIterable[bytes]) -> AsyncGenerator[dict[str, Any], None]:
    """Bytes, cut anywhere, to frames: the JSON of the one `data:` line with `id` and `retry` put in; a comment is `{}`."""
    rest = b""
    async for chunk in chunks:
        *blocks, rest = (rest + chunk).replace(b"\r\n", b"\n").split(b"\n\n")
        for block in blocks:
            fields = dict(re.findall("(?m)^(data|id|retry): ?(.*)", block.decode()))
            data = json.loads(fields.pop("data", "{}"))
            yield {"call_id" if name == "id" else name: value for name, value in data.items()} | fields


class JobReader:
    """Iterate it once. It yields each frame's data, with the event's `id` put in (a `tool_call`'s own becomes `call_id`), and
    `{"type": "dropped", "error": …}` when a connection breaks, be it by `silence_s`, three heartbeats, without a byte; it ends
    after the terminal event. To go on in another process: `cursor` and `text` are the Job's `last_event_id` and `text`."""

    def __init__(
        self, base_url: str, job_id: str, *, cursor: str | None = None, client: httpx2.AsyncClient | None = None,
        headers: Mapping[str, str] | None = None, merge: bool = True, give_up_after_s: float = 60.0, silence_s: float = 45.0,
    ) -> None:  # fmt: skip
        self.url = f"{base_url.rstrip('/')}/v1/jobs/{quote(job_id, safe='')}/events{'' if merge else '?merge=0'}"
        self._client, self._headers, self._timeout = client, dict(headers or {}), httpx2.Timeout(10.0, read=silence_s)
        self._give_up_after_s, self._failing_since, self.retry_s = give_up_after_s, 0.0, 1.0
        self._start_over(cursor, [])
        self.terminal: dict[str, Any] | None = None
        self.connections = self.lost = self.doubled = self._reread = 0  # lost and doubled events, proved from the ids
        self._ended, self._cut, self._reading = False, False, asyncio.Timeout(None)

    def _start_over(self, cursor: str | None, attempts: list[dict[str, Any]]) -> None:
        self.cursor, self.attempts = cursor, attempts
        self.text = self.reasoning = self.refusal = ""
        self._calls, self.tool_calls = dict[int, dict[str, Any]](), list[dict[str, Any]]()

    def drop(self) -> None:
        """Cuts the connection now, as a network would; the iteration goes on with the next one."""
        self._cut = True
        with suppress(RuntimeError):  # no read is waiting
            self._reading.reschedule(0)

    async def __aiter__(self) -> AsyncGenerator[dict[str, Any], None]:
        async with nullcontext(self._client) if self._client else httpx2.AsyncClient() as client:
            while not self._ended:
                error = "the server sends its readers away"
                try:
                    async with aclosing(self._connection(client)) as frames:
                        async for frame in frames:
                            yield frame
                except (ValueError, LookupError, TypeError, AttributeError) as wrong:
                    raise StreamRefused(200, {"detail": f"not an event of this protocol: {wrong!r}"}) from wrong
                except (httpx2.RequestError, ConnectionError, TimeoutError) as broken:
                    error = "cut by the reader" if self._cut else str(broken) or type(broken).__name__
                    yield {"type": "dropped", "error": error}
                await asyncio.sleep(0 if self._ended else self._delay(error))

    def _delay(self, error: str) -> float:
        """Seconds until the next connection: what `retry:` said, or about as long as it has been failing, up to 15."""
        self._failing_since = self._failing_since or time.monotonic()
        failing_s = time.monotonic() - self._failing_since
        delay = max(self.retry_s, min(failing_s, 15.0) * random.uniform(0.5, 1.0))
        if failing_s + delay > self._give_up_after_s:
            raise StreamLost(f"nothing came from {self.url} for {self._give_up_after_s:g} s: {error}")
        return delay

    async def _connection(self, client: httpx2.AsyncClient) -> AsyncGenerator[dict[str, Any], None]:
        """The frames of one connection, each taken in before it is yielded. Returns where the protocol ends it."""
        self.connections, self._cut = self.connections + 1, False
        headers = self._headers | {"Accept": "text/event-stream"} | ({"Last-Event-ID": self.cursor} if self.cursor else {})
        async with client.stream("GET", self.url, headers=headers, timeout=self._timeout) as response:
            status, kind = response.status_code, response.headers.get("content-type", "")
            self._ended = status == 204  # all was read before
            if self._ended:
                return
            if status >= 500 or status in (408, 425, 429):
                raise ConnectionError(f"HTTP {status}")  # passes by itself
            if status != 200 or not kind.startswith("text/event-stream"):
                raise StreamRefused(status, json.loads(await response.aread()) if "problem" in kind else {})
            async with aclosing(response.aiter_bytes()) as chunks, aclosing(sse_frames(chunks)) as frames:
                while not self._cut:
                    async with asyncio.timeout(None) as self._reading:  # `drop()` ends this wait, and no other
                        frame = await anext(frames, None)
                    if frame is None:
                        break
                    goes_on = self._take(frame)
                    if "type" in frame:
                        yield frame
                    if not goes_on:
                        return
        raise ConnectionError("the stream ended before the job did")

    def _take(self, frame: dict[str, Any]) -> bool:
        """Takes a frame in, by its id; False if the connection ends with it."""
        kind, last, n = str(frame.get("type", "")), self.cursor or "0-0", frame.get("n", 1)
        if "retry" in frame:
            self.retry_s = int(frame["retry"]) / 1000
        elif kind != "reconnect":  # a comment, too, is a sign of life
            self._failing_since = 0.0
        if kind == "rewind":
            self._start_over(None, [])
        if "id" not in frame:
            return kind != "reconnect"
        (attempt, seq), (last_attempt, last_seq) = (map(int, i.split("-")) for i in (frame["id"], last))
        if (attempt, seq) <= (last_attempt, last_seq):
            self.doubled += n
            return True
        missed = kind == "started" and frame["after"] != last  # or outran something: reads all again, but only once
        if missed and attempt > self._reread:
            self._reread = attempt
            self._start_over(None, [])
            return False
        gap = seq - n - (last_seq if attempt == last_attempt else -1) + missed  # within an attempt, seq == previous seq + n
        self.lost, self.doubled, self.cursor = self.lost + max(gap, 0), self.doubled + max(-gap, 0), frame["id"]
        self._apply(kind, frame)
        return not self._ended

    def _apply(self, kind: str, frame: dict[str, Any]) -> None:
        if kind in ("token", "reasoning", "refusal"):
            name = "text" if kind == "token" else kind
            setattr(self, name, getattr(self, name) + frame["text"])
        elif kind == "tool_call":
            function = {"name": None, "arguments": ""}
            call = self._calls.setdefault(frame["index"], {"id": None, "type": "function", "function": function})
            call["id"], call["function"]["name"] = frame.get("call_id", call["id"]), frame.get("name", call["function"]["name"])
            call["function"]["arguments"] += frame.get("arguments", "")
            self.tool_calls = [call for _, call in sorted(self._calls.items())]
        elif kind == "started":
            if frame["reset"]:
                self._start_over(self.cursor, self.attempts)
            self.attempts.append(frame)
        elif kind in ("done", "error", "cancelled"):
            self.terminal, self._ended = frame, True
