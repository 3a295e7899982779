"""Replays of ended logs, which their readers share: read, encoded and merged once, then sent to each as it is (protocol 4.5).

An ended log does not change any more, so what one reader at a cursor was sent is what the next one there will be. Pages are
known by the log's last id too: a failover can take a terminal event back, and what is written in its place has another attempt.
"""

import asyncio
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.errors import RedisUnavailable
from shared.event_log import PAGE, Entry, EventLog
from shared.events import to_data
from shared.ids import START, EventId
from shared.redis_client import UNREACHABLE
from shared.settings import Settings
from web.replay import CHUNK, outran
from web.sse import REWIND, Frame, merged
from web.subscriber import State, Subscriber
from web.traffic import Traffic

_KEPT_S: Final = 30.0
"""From its reading until a page is dropped: longer than a herd takes to come back, and no log outlives its erasure by more."""
_MOST_ENTRIES: Final = 4 * PAGE
"""Of one page, however short they are: encoding more would hold the loop for too long."""


class Place(NamedTuple):
    """What a reader is sent next depends on nothing else. `last` is the id of the log's terminal event."""

    job_id: str
    last: EventId
    cursor: EventId
    merge: bool


class Page(NamedTuple):
    """Whole frames that make one write, and the cursor of a reader that has them. `terminal`: the last of them ends the log."""

    body: bytes
    after: EventId
    terminal: bool
    frames: int
    merged_frames: int


class Replays:
    """Holds at most `replay_cache_bytes` of pages; the oldest go first."""

    def __init__(
        self, event_log: EventLog, settings: Settings, traffic: Traffic, send_away: Callable[[Subscriber, str], None]
    ) -> None:
        """`send_away` ends a reader's response with a `reconnect` and its reason."""
        self._log = event_log
        self._settings = settings
        self._traffic = traffic
        self._send_away = send_away
        self._pages: dict[Place, Page] = {}
        self._size = 0
        self._being_read: dict[Place, asyncio.Event] = {}

    async def send(self, subscriber: Subscriber, last: EventId, *, draining: Callable[[], bool]) -> None:
        """Sends a reader the rest of its ended log, and completes its response.

        Raises:
            RedisUnavailable: the log cannot be read.
        """
        loop = asyncio.get_running_loop()
        self._traffic.replays += 1
        while subscriber.state is State.REPLAYING:
            if draining():
                self._send_away(subscriber, "draining")
                return
            page = await self._page(Place(subscriber.job_id, last, subscriber.cursor, subscriber.merge))
            if subscriber.state is not State.REPLAYING:
                return
            if page is None:  # expired or erased since
                self._send_away(subscriber, "the log is gone")
                return
            subscriber.cursor = page.after
            self._count(subscriber, page)
            if page.terminal:
                subscriber.end(page.body, loop.time())
            else:
                await subscriber.write_slowly(page.body, loop.time())

    def _count(self, subscriber: Subscriber, page: Page) -> None:
        subscriber.frames += page.frames
        traffic = self._traffic
        traffic.size += len(page.body)
        traffic.merged_frames += page.merged_frames
        traffic.rewinds += page.body is REWIND

    async def _page(self, place: Place) -> Page | None:
        """What comes next at a place; None when the log is gone. Whoever comes first reads it, the others wait."""
        while (being_read := self._being_read.get(place)) is not None:
            await being_read.wait()
        page = self._pages.get(place)
        if page is None:
            being_read = self._being_read[place] = asyncio.Event()
            try:
                page = await self._read(place)
            finally:
                del self._being_read[place]
                being_read.set()
            if page is not None:
                self._keep(place, page)
        return page

    async def _read(self, place: Place) -> Page | None:
        frames: list[Frame] = []
        size, after, ended = 0, place.cursor, False
        while not ended and size < CHUNK and len(frames) < _MOST_ENTRIES:
            entries = await self._entries(place.job_id, after)
            if not entries:
                break
            if outran(entries[0].event, after):
                if frames:
                    break
                return Page(REWIND, START, terminal=False, frames=0, merged_frames=0)
            for entry in entries:
                event = entry.event
                frame = Frame(entry.id, to_data(event))
                # Merged, a token is little more than its text.
                size += sum(map(len, entry.fields.values())) if place.merge else len(frame.data)
                if frames and size > CHUNK:
                    break
                frames.append(frame)
                after, ended = entry.id, event.terminal
        if not frames:
            return None
        sent = list(merged(frames, self._settings.frame_limit)) if place.merge else frames
        body = b"".join([frame.encode() for frame in sent])
        return Page(body, after, ended, len(sent), sum(frame.n > 1 for frame in sent))

    async def _entries(self, job_id: str, after: EventId) -> list[Entry]:
        try:
            return await self._log.read(job_id, after, PAGE)
        except UNREACHABLE as error:
            raise RedisUnavailable("Redis is away.") from error

    def _keep(self, place: Place, page: Page) -> None:
        if len(page.body) > self._settings.replay_cache_bytes:
            return
        self._pages[place] = page
        self._size += len(page.body)
        while self._size > self._settings.replay_cache_bytes:
            self._drop(next(iter(self._pages)))
        asyncio.get_running_loop().call_later(_KEPT_S, self._drop, place)

    def _drop(self, place: Place) -> None:
        page = self._pages.pop(place, None)
        self._size -= len(page.body) if page is not None else 0
