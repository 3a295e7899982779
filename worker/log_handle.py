"""One attempt's way into its log: what waits for Redis, and what Redis has but might still forget.

    seq      first                 first + held                next
    offers   [ held, in the log    | waiting for Redis         ]
               let go after `hold_s` with Redis alive

What a restart or failover forgot is made to wait again, so that it goes out as it did the first time, under the same ids.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from shared.errors import GenerationFailed, LogBehind, LogRefused
from shared.events import AnyEvent, Terminal, ToolCall
from shared.ids import EventId
from shared.log_commands import Offer, check_answer
from shared.ownership import KeptUpstream, Ownership
from shared.settings import Settings

MOST_AT_ONCE: Final = 500
"""Entries in one script, of one job or of many: some milliseconds of Redis' one thread, not more."""


class End(NamedTuple):
    """A terminal event on its way into the log."""

    event: Terminal
    private: Mapping[str, Any]


class Noted(NamedTuple):
    """At this moment (`time.monotonic()`) the log had everything up to `seq`, so many characters, and its end or not."""

    at: float
    seq: int
    size: int
    ended: bool


class LogHandle:
    """Only its own attempt appends to it. The writer reads it, and says what became of what it read."""

    def __init__(
        self,
        owner: Ownership,
        settings: Settings,
        wake: Callable[["LogHandle"], None],
        doubt: Callable[["LogHandle"], None],
    ) -> None:
        """`wake` is called whenever there is something to write, `doubt` to have the log compared before."""
        self.owner = owner
        self.refused: LogRefused | None = None
        """Why the log takes nothing more from this attempt, once it does not."""
        self.end_offered: End | None = None
        self.ended = False
        """The log has its terminal event from us."""
        self.opening_held = True
        """Whether Redis may still forget the claim itself."""
        self.claimed_at = time.time()
        self._settings = settings
        self.followed = False
        """The same owner has opened its next attempt: nothing more comes of this one."""
        self.upstream: KeptUpstream | None = None
        """The response that it reads, where that goes on by itself."""
        self._wake = wake
        self._doubt = doubt
        self._offers: list[Offer] = []
        self._first = 1
        self._held = 0
        self._lost = 0  # how many of those that wait were in the log before
        self._room, self._room_bytes = settings.writer_buffer_events, settings.writer_buffer_bytes
        self._size = 0  # characters offered, of all that was offered ever
        self._let_go = 0  # those of them that are not held any more
        self._compared = False
        self._noted: deque[Noted] = deque()
        self._changed = asyncio.Event()

    # --- for the attempt ---------------------------------------------------------------------------------------------

    @property
    def next_seq(self) -> int:
        """The seq of the next event offered; `N-0` was written by the claim."""
        return self._first + len(self._offers)

    @property
    def full(self) -> bool:
        """Whether the next `append` would have to wait for room."""
        return len(self._offers) >= self._room or self._size - self._let_go >= self._room_bytes

    async def append(self, event: AnyEvent, private: Mapping[str, Any] | None = None) -> None:
        """Offers an event; returns at once unless too much is held already, and then slows the caller down.

        Raises:
            LogRefused: the log took nothing since; this attempt must stop.
            GenerationFailed: there was no room for `writer_patience_s`.
        """
        if self.full:
            await self._wait_for_room()
        if self.refused is not None:
            raise self.refused
        self._offers.append(Offer(event, private))
        self._size += _size_of(event)
        self._wake(self)

    async def flush(self) -> None:
        """Returns once everything offered is in the log. Raises LogRefused."""
        while self.waiting:
            await self._wait()
        if self.refused is not None:
            raise self.refused

    async def end(self, event: Terminal, private: Mapping[str, Any]) -> None:
        """Returns once everything offered, and this after it, is in the log, however long that takes. Raises LogRefused."""
        self.end_offered = End(event, private)
        self._wake(self)
        while not self.ended and self.refused is None:
            await self._wait()
        if self.refused is not None:
            raise self.refused

    async def make_whole(self) -> None:
        """Returns once the log was compared with what it took, and has all of it again. Raises LogRefused."""
        self._compared = False
        self._doubt(self)
        while not self._compared and self.refused is None:
            await self._wait()
        await self.flush()

    # --- for the writer ----------------------------------------------------------------------------------------------

    @property
    def first_seq(self) -> int:
        """The seq of the first event that waits."""
        return self._first + self._held

    @property
    def counts(self) -> tuple[int, int]:
        """Events that wait for the log, and events that it has and that are held."""
        held = self._held
        return max(0, len(self._offers) - held), held

    @property
    def waiting(self) -> bool:
        return len(self._offers) > self._held and self.refused is None

    @property
    def end_is_due(self) -> bool:
        return self.end_offered is not None and not self.ended and not self.waiting and self.refused is None

    def offered(self) -> list[Offer]:
        """What goes into the next round trip. What the log lost goes by itself, so that readers who had it see it whole."""
        n = min(MOST_AT_ONCE, self._lost) if self._lost else MOST_AT_ONCE
        return self._offers[self._held : self._held + n]

    def took(self, n: int) -> None:
        self._held += n
        if self._lost:
            self._lost -= n
        self._changed.set()

    def took_end(self) -> None:
        self.ended = True
        self._changed.set()

    def refuse(self, reason: LogRefused) -> None:
        self.refused = reason
        self._offers.clear()
        self._held = 0
        self._changed.set()

    def let_go(self, now: float, alive_at: float) -> bool:
        """Drops what the log has had for `hold_s` at the moment `alive_at`, when Redis was last heard of. True when nothing of
        this attempt is left that Redis may forget."""
        written = self._first + self._held - 1
        gone: Noted | None = None
        while self._noted and self._noted[0].at + self._settings.hold_s <= alive_at:
            gone = self._noted.popleft()
        if gone is not None:
            self._drop(gone)
            if gone.ended or (self.followed and not self._offers):
                return True
        last = self._noted[-1] if self._noted else gone
        if last is None or (last.seq, last.ended) != (written, self.ended):
            waiting = sum(_size_of(offer.event) for offer in self._offers[self._held :])
            self._noted.append(Noted(now, written, self._size - waiting, self.ended))
        return False

    def compare(self, answer: list[bytes]) -> None:
        """Takes in what `reclaim` says of the log: what it lost waits again, or, where it is not held any more, the attempt is
        refused."""
        try:
            self._take_in(answer)
        except LogRefused as refused:
            self.refuse(refused)
        self._noted.clear()  # what it has, this Redis has since now for all we know
        self._compared = True
        self._changed.set()

    def _take_in(self, answer: list[bytes]) -> None:
        if answer[0] == b"over":
            return
        if answer[0] != b"at":
            check_answer(answer, self.owner.job_id)
        last = EventId.from_redis(answer[1])
        written = self.first_seq - 1
        if last < EventId(self.owner.attempt, self._first - 1) or (last.attempt > self.owner.attempt and self.waiting):
            raise LogBehind(f"the log of job {self.owner.job_id} ends at {last}, where nothing of this attempt can follow")
        if last.attempt == self.owner.attempt and last.seq < written:
            self._lost = written - last.seq
            self._held -= self._lost
        self.ended = False

    def _drop(self, gone: Noted) -> None:
        n = gone.seq - self._first + 1
        self._let_go = gone.size
        del self._offers[:n]
        self._first += n
        self._held -= n
        self.opening_held = False
        self._changed.set()

    async def _wait_for_room(self) -> None:
        try:
            async with asyncio.timeout(self._settings.writer_patience_s):
                while self.full and self.refused is None:
                    await self._wait()
        except TimeoutError:
            raise GenerationFailed("internal", "Redis took so little for so long that no more could be held for it.") from None

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


def _size_of(event: AnyEvent) -> int:
    """Characters of what a provider produced, which is all that can be large."""
    return len(event.arguments if type(event) is ToolCall else event.text)  # type: ignore[union-attr]
