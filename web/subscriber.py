"""One reader's place in one job's stream: a cursor, not a queue, and not a task. No framework, no Redis.

    REPLAYING ──reached the tail──▶ LIVE ──terminal event──▶ ENDED
        ▲                            │
        └──fell behind the tail──────┘

The hub calls `write`, which puts frames into the reader's transport, by a call that its server lends (`web/lent.py`). Where
there is none, or it would have to wait, it runs the reader's ASGI `send` up to its first suspension: that suspends only while
the transport is over its high-water mark; the rest of that one call then goes on in a task of its own, the reader is `blocked`
until it is through, and the hub skips it meanwhile. So no reader slows another, and none has a queue.
"""

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator, MutableMapping
from enum import Enum
from typing import Any

from shared.ids import EventId

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class State(Enum):
    REPLAYING = "replaying"
    """Reads history from the log; pushes are not for it."""
    LIVE = "live"
    """Takes what is pushed."""
    ENDED = "ended"
    """Its response is complete, or its connection gone."""


class Subscriber:
    __slots__ = (
        "_on_ready",
        "_put",
        "_send",
        "abort",
        "ahead_since",
        "blocked_since",
        "cursor",
        "frames",
        "heartbeat",
        "job_id",
        "last_sent",
        "merge",
        "opened_at",
        "state",
        "task",
        "why",
    )

    def __init__(
        self,
        job_id: str,
        cursor: EventId,
        send: Send,
        *,
        heartbeat: bytes,
        merge: bool,
        now: float,
        abort: Callable[[], None],
        on_ready: Callable[["Subscriber"], None],
        put: Callable[[bytes], bool] | None = None,
    ) -> None:
        """`on_ready` is called when a blocked reader takes data again; `abort` cuts its connection without a word; `put` is the
        server's shorter way, where it lends one (`web/lent.py`)."""
        self.job_id = job_id
        self.cursor = cursor
        self.state = State.REPLAYING
        self.heartbeat = heartbeat
        self.merge = merge
        self.opened_at = now
        self.last_sent = now
        self.blocked_since: float | None = None
        self.frames = 0
        """Those that were sent."""
        self.why = "left"
        """What ended it: `ended`, the reason of a `reconnect`, `stalled`, `failed`, or the reader itself."""
        self.ahead_since: float | None = None
        """When its cursor was first seen beyond its log's end; None while the log holds its place."""
        self.abort = abort
        self.task: asyncio.Task[None] | None = None
        """What it does by itself: a replay after it fell behind, or the rest of a blocked send."""
        self._send = send
        self._on_ready = on_ready
        self._put = put

    @property
    def takes_pushes(self) -> bool:
        return self.state is State.LIVE and self.blocked_since is None

    def ahead_for(self, now: float) -> float:
        """How many seconds ago its cursor was first seen beyond its log's end, which it still is."""
        if self.ahead_since is None:
            self.ahead_since = now
        return now - self.ahead_since

    def write(self, body: bytes, now: float, *, last: bool = False) -> None:
        """Sends without ever waiting. Only for a reader that is not blocked; whole frames only."""
        self.last_sent = now
        try:
            if self._put is not None and not last and self._put(body):
                return
            call = self._send({"type": "http.response.body", "body": body, "more_body": not last})
            steps: Generator[Any, None, None] = call.__await__()
            waiting_for = next(steps)
        except StopIteration:
            return
        except Exception:  # noqa: BLE001  # one reader's fault is its own: the others of this delivery get theirs
            self.fail()
            return
        self.blocked_since = now
        self.task = asyncio.get_running_loop().create_task(self._finish(steps, waiting_for))

    async def _finish(self, steps: Generator[Any, None, None], waiting_for: Any) -> None:
        try:
            await _go_on(steps, waiting_for)
        except Exception:  # noqa: BLE001  # as in write
            self.fail()
        self.blocked_since = None
        self.task = None
        self._on_ready(self)

    async def write_slowly(self, body: bytes, now: float) -> None:
        """Sends and waits for room: for a replay, which has a task to wait in."""
        self.last_sent = now
        self.blocked_since = now
        try:
            await self._send({"type": "http.response.body", "body": body, "more_body": True})
        finally:
            self.blocked_since = None

    def end(self, body: bytes, now: float, why: str = "ended") -> None:
        """Sends its last frames and completes the response."""
        self.state, self.why = State.ENDED, why
        self.write(body, now, last=True)

    def fail(self, why: str = "failed") -> None:
        """Cuts it off without a word."""
        self.state, self.why = State.ENDED, why
        self.abort()


@types.coroutine
def _go_on(steps: Generator[Any, None, None], waiting_for: Any) -> Generator[Any, None, None]:
    """The rest of a coroutine whose first steps were run by hand; `waiting_for` is the future it stopped at."""
    while True:
        try:
            yield waiting_for
        except BaseException as error:  # noqa: BLE001  # a task throws cancellation in here; the coroutine decides
            try:
                waiting_for = steps.throw(error)
            except StopIteration:
                return
        else:
            try:
                waiting_for = next(steps)
            except StopIteration:
                return
