"""A reader at work beside the test: what it took in, and when."""

import asyncio
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import httpx2

from cli.reader import JobReader
from tests.support.waiting import wait_until


class Seen(NamedTuple):
    """A frame and the time at which the reader had it, `time.monotonic()`."""

    at: float
    frame: dict[str, Any]


class Reading:
    """Follows one job to its end with the reader that the command line uses; nothing else feeds it."""

    def __init__(self, base_url: str, job_id: str, client: httpx2.AsyncClient, cursor: str | None = None) -> None:
        self.reader = JobReader(base_url, job_id, client=client, cursor=cursor)
        self.seen: list[Seen] = []
        self._drops: list[int] = []
        self._task = asyncio.create_task(self._read(), name=f"reading {job_id}")

    def drop_at(self, *frames: int) -> None:
        """Cuts its connection when it has so many frames, each time once."""
        self._drops = sorted(frames)

    async def until(self, condition: Callable[["Reading"], bool], timeout: float = 15.0, message: str = "") -> None:
        await wait_until(lambda: self._task.done() or condition(self), timeout, message)
        assert condition(self), f"the reading ended before: {message or 'the condition'}"

    async def until_words(self, n: int, timeout: float = 15.0) -> None:
        """Returns once it holds so many words."""
        await self.until(lambda me: me.words >= n, timeout, f"{n} words")

    async def until_attempts(self, n: int, timeout: float = 15.0) -> Seen:
        """The n-th `started`, once it is here."""
        await self.until(lambda me: len(me.starts) >= n, timeout, f"attempt number {n}")
        return self.starts[n - 1]

    async def until_next(self, kind: str, after: float, timeout: float = 15.0) -> Seen:
        """The first frame of a type that it got after a moment of `time.monotonic()`, once it is here."""

        def found() -> list[Seen]:
            return [seen for seen in self.seen if seen.at > after and seen.frame["type"] == kind]

        await self.until(lambda _: bool(found()), timeout, f"a {kind}")
        return found()[0]

    async def to_the_end(self, timeout: float = 30.0) -> None:
        async with asyncio.timeout(timeout):
            await self._task

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    @property
    def words(self) -> int:
        return self.reader.text.count(" ")

    @property
    def starts(self) -> list[Seen]:
        """The `started` frames that it saw, of whatever connection."""
        return [seen for seen in self.seen if seen.frame["type"] == "started"]

    @property
    def rewinds(self) -> int:
        """How often it was told to discard what it had."""
        return sum(seen.frame["type"] == "rewind" for seen in self.seen)

    @property
    def ended(self) -> str | None:
        """The type of its terminal event."""
        return self.reader.terminal["type"] if self.reader.terminal else None

    def assert_whole(self, text: str) -> None:
        """It was told everything, once, and what it holds is what the upstream said."""
        assert (self.reader.lost, self.reader.doubled) == (0, 0)
        assert self.ended == "done"
        assert self.reader.text == text

    async def _read(self) -> None:
        async for frame in self.reader:
            self.seen.append(Seen(time.monotonic(), frame))
            if self._drops and len(self.seen) >= self._drops[0]:
                del self._drops[0]
                self.reader.drop()
