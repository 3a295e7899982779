"""The response upstream that a job's attempts read, one after the other, where it goes on when nobody reads it."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import structlog

from shared.ownership import KeptUpstream
from shared.redis_client import UNREACHABLE
from worker.upstreams import Upstreams

log = structlog.get_logger()


class JobUpstream:
    """Noted in the job's record before anything of it is in the log, so that whoever takes the job over finds it.

    `kept` is None while there is none, and once it is over or being cancelled; `readable` until it turns out that nothing of it
    can be read on.
    """

    def __init__(self, note: Callable[[KeptUpstream], Awaitable[None]], upstreams: Upstreams) -> None:
        """`note` writes it into the record."""
        self.kept: KeptUpstream | None = None
        self.readable = True
        self._note = note
        self._upstreams = upstreams
        self._noted = False
        self._chores: set[asyncio.Task[None]] = set()

    def opened(self, read_on: KeptUpstream | None, *, left: bool) -> None:
        """An attempt was claimed: it reads this response on, or begins anew. `left`: the claim left another one behind."""
        self.kept, self.readable, self._noted = read_on, True, read_on is not None
        if left:
            self._start(self._sweep())

    async def note(self, upstream: KeptUpstream) -> None:
        """The attempt's response is known. Raises what noting it raises."""
        self.kept, self._noted = upstream, False
        await self._note(upstream)
        self._noted = True

    async def hand_over(self) -> None:
        """Whoever claims next finds it, also where the attempt was stopped while it noted it. Raises what noting it raises."""
        if self.kept is not None and not self._noted:
            await self.note(self.kept)

    def over(self) -> None:
        """It has ended by itself."""
        self.kept = None

    def abandon(self) -> None:
        """Nobody reads it on: it is being cancelled from here on."""
        if self.kept is not None:
            self._start(self._upstreams.abandon(self.kept))
        self.kept = None

    def lost(self) -> None:
        """The job is another's, and so is what the record says of its response; of one that is not noted only we know."""
        if not self._noted:
            self.abandon()

    async def settle(self) -> None:
        """Returns once everything that was abandoned is cancelled, or cannot be; in bounded time."""
        if self._chores:
            await asyncio.wait(self._chores)

    def _start(self, chore: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(chore)
        self._chores.add(task)
        task.add_done_callback(self._chores.discard)

    async def _sweep(self) -> None:
        try:
            await self._upstreams.sweep()
        except UNREACHABLE as error:
            log.debug("the reaper will cancel what was left upstream", error=str(error))
