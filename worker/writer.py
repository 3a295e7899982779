"""Group commit: all jobs of a worker share one writer, and what they produced during a round trip goes out in the next.

Under light load a token leaves at once; under heavy load round trips stay few. Appends carry explicit ids, so that offering
them again after a lost reply is harmless: while Redis is away the writer holds what it has and offers it again.
"""

import asyncio
from collections.abc import Iterator, Mapping
from typing import Any, Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError

from shared.errors import LogRefused
from shared.event_log import Append, Offer, Ownership, append_command, check_answer
from shared.events import AnyEvent
from shared.redis_client import UNREACHABLE, scripts
from shared.settings import Settings
from worker.leases import Leases

log = structlog.get_logger()

MOST_AT_ONCE: Final = 500
"""Entries in one script, of one job or of many: some milliseconds of Redis' one thread, not more."""
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 1.0


class LogHandle:
    """One attempt's way into its log. Only its own attempt appends to it."""

    def __init__(self, writer: "Writer", owner: Ownership, room: int) -> None:
        self.owner = owner
        self.refused: LogRefused | None = None
        """Why the log takes nothing more from this attempt, once it does not."""
        self._writer = writer
        self._room = room
        self._offers: list[Offer] = []
        self._written = 0
        self._changed = asyncio.Event()

    @property
    def next_seq(self) -> int:
        """The seq of the next event offered; `N-0` was written by the claim."""
        return self._written + len(self._offers) + 1

    async def append(self, event: AnyEvent, private: Mapping[str, Any] | None = None) -> None:
        """Offers an event; returns at once unless too many wait for Redis, and then slows the caller down.

        Raises:
            LogRefused: the log took nothing since; this attempt must stop.
        """
        while len(self._offers) >= self._room:
            await self._wait()
        if self.refused is not None:
            raise self.refused
        self._offers.append(Offer(event, private))
        self._writer.wake(self)

    async def flush(self) -> None:
        """Returns once everything offered is in the log. Raises LogRefused."""
        while self._offers and self.refused is None:
            await self._wait()
        if self.refused is not None:
            raise self.refused

    def offered(self) -> list[Offer]:
        """What goes into the next round trip."""
        return self._offers[:MOST_AT_ONCE]

    @property
    def first_seq(self) -> int:
        return self._written + 1

    @property
    def waiting(self) -> bool:
        return bool(self._offers) and self.refused is None

    def took(self, n: int) -> None:
        self._written += n
        del self._offers[:n]
        self._changed.set()

    def refuse(self, reason: LogRefused) -> None:
        self.refused = reason
        self._offers.clear()
        self._changed.set()

    async def _wait(self) -> None:
        self._changed.clear()
        await self._changed.wait()


Row = tuple[LogHandle, list[Offer]]
"""What one log gets in one round trip."""


class Writer:
    def __init__(self, redis: Redis, settings: Settings, leases: Leases) -> None:
        self._redis = redis
        self._settings = settings
        self._leases = leases
        self._dirty: dict[LogHandle, None] = {}  # a set that keeps its order: first offered, first written
        self._something = asyncio.Event()

    def open(self, owner: Ownership) -> LogHandle:
        return LogHandle(self, owner, self._settings.writer_buffer_events)

    def wake(self, handle: LogHandle) -> None:
        self._dirty[handle] = None
        self._something.set()

    async def run_forever(self) -> None:
        """The one task that writes. Cancelled by the worker once its jobs are done."""
        pause = 0.0
        while True:
            await self._something.wait()
            self._something.clear()
            await self._leases.wait_until_fresh()
            batch, self._dirty = list(self._dirty), {}
            pause = await self._write(batch, pause)

    async def _write(self, batch: list[LogHandle], pause: float) -> float:
        """One round trip for all; returns the pause that the next failure is followed by, 0 after a success."""
        rows = [(handle, handle.offered()) for handle in batch if handle.waiting]
        if not rows:
            return 0.0
        try:
            answers = await self._execute(rows)
        except UNREACHABLE as error:
            return await self._hold(rows, pause, "Redis is away", error)
        refusing: Exception | None = None
        for (handle, offers), answer in zip(rows, answers, strict=True):
            if isinstance(answer, (OutOfMemoryError, *UNREACHABLE)):
                refusing = answer
            else:
                _settle(handle, len(offers), answer)
                if handle.waiting:
                    self.wake(handle)
        if refusing is not None:
            return await self._hold([row for row in rows if row[0].waiting], pause, "Redis takes no writes", refusing)
        if pause:
            log.info("the log takes events again")
        return 0.0

    async def _execute(self, rows: list[Row]) -> list[Any]:
        """One answer a row; an exception where its script failed."""
        groups = list(_groups(rows))
        async with self._redis.pipeline(transaction=False) as pipe:
            for group in groups:
                pipe.execute_command(*append_command(Append(h.owner, h.first_seq, offers) for h, offers in group))
            answers: list[Any] = await pipe.execute(raise_on_error=False)
        if any(isinstance(answer, NoScriptError) for answer in answers):
            await scripts.load_again(self._redis)
            return await self._execute(rows)
        return [
            one
            for group, answer in zip(groups, answers, strict=True)
            for one in (answer if isinstance(answer, list) else [answer] * len(group))
        ]

    async def _hold(self, rows: list[Row], pause: float, why: str, error: Exception) -> float:
        if not pause:
            log.warning("the log takes nothing for now; what was generated is held", why=why, error=str(error))
        pause = min(pause * 2 or _FIRST_PAUSE_S, _LONGEST_PAUSE_S)
        await asyncio.sleep(pause)
        for handle, _ in rows:
            self.wake(handle)
        return pause


def _settle(handle: LogHandle, n: int, answer: Any) -> None:
    if isinstance(answer, RedisError):
        raise answer  # a script that fails is a bug of ours: the worker dies of it, and another takes its jobs
    try:
        check_answer(answer, handle.owner.job_id)
    except LogRefused as refused:
        handle.refuse(refused)
    else:
        handle.took(n)


def _groups(rows: list[Row]) -> Iterator[list[Row]]:
    """What goes into one script each: whole rows, as many as fit."""
    group: list[Row] = []
    entries = 0
    for row in rows:
        if group and entries + len(row[1]) > MOST_AT_ONCE:
            yield group
            group, entries = [], 0
        group.append(row)
        entries += len(row[1])
    yield group
