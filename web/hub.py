"""One process, many readers: pushes come in on one connection, and go out to every reader that stands where they begin.

    push connection ─▶ tail of the job ─▶ rounds ─▶ subscribers, each written to directly
                                            └─────▶ a subscriber without a place in the tail reads the log (replay), then joins

The order of things keeps this gapless: a job's channel is subscribed to first and its history read second; a frame goes only
to a subscriber that stands exactly before it. Pushes can be lost (a reconnect, a frozen server), so that every few seconds,
and after each (re)subscribe, the logs' own last ids are compared with where the readers stand.
"""

import asyncio
from collections.abc import Coroutine
from typing import Final

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import keys
from shared.errors import RedisUnavailable
from shared.event_log import PAGE, Entry, EventLog
from shared.events import to_data
from shared.ids import START, EventId
from shared.push import Push, parse_push
from shared.redis_client import UNREACHABLE
from shared.settings import Settings
from web.push_connection import PushConnection
from web.replay import at_once, joined, outran, send_page
from web.replays import Replays
from web.rounds import Rounds
from web.sse import REWIND, Frame, reconnect, split_frames
from web.subscriber import State, Subscriber
from web.tail import Tail
from web.traffic import Traffic

log = structlog.get_logger()

_TICK_S: Final = 1.0
_ON_ITS_WAY_S: Final = 0.5
"""How much later than its entry a push may come before it counts as lost."""


class Hub:
    def __init__(self, redis: Redis, event_log: EventLog, settings: Settings) -> None:
        self._redis = redis
        self._log = event_log
        self._settings = settings
        self._tails: dict[str, Tail] = {}
        self._confirmed: dict[str, asyncio.Future[None]] = {}
        self._draining = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._subscribers: set[Subscriber] = set()
        self._second_look: asyncio.Task[None] | None = None
        self._pushes = PushConnection(
            redis, settings, self._take, lambda: map(keys.log, self._tails), lambda: self._spawn(self._check_logs(patience_s=0))
        )
        self.traffic = Traffic()
        self._rounds = Rounds(self.traffic, self._fell_behind)
        self._silence_s = settings.heartbeat_s - _TICK_S / 2
        """After so much of it a heartbeat is due."""
        self._replays = Replays(event_log, settings, self.traffic, self.send_away)

    # --- readers -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._subscribers)

    @property
    def followed(self) -> int:
        """Jobs with at least one reader."""
        return len(self._tails)

    @property
    def frames(self) -> int:
        """Sent to all readers since the start."""
        return self.traffic.frames + sum(subscriber.frames for subscriber in list(self._subscribers))

    @property
    def draining(self) -> bool:
        return self._draining

    async def follow(self, subscriber: Subscriber, *, ended_at: EventId | None = None) -> None:
        """Replays history to a reader and lets it join the tail. Returns when it is live, or has ended.

        `ended_at`: the id of the log's terminal event, where it has that; nothing will be pushed any more.

        Raises:
            RedisUnavailable: the job's channel cannot be subscribed to, or its log not read.
        """
        self._subscribers.add(subscriber)
        if ended_at is not None:
            await self._replays.send(subscriber, ended_at, draining=lambda: self._draining)
            return
        tail = self._tails.get(subscriber.job_id)
        if tail is not None:
            tail.subscribers.add(subscriber)
        else:
            tail = self._tails[subscriber.job_id] = Tail(subscriber.job_id, self._settings.tail_bytes)
            tail.subscribers.add(subscriber)  # before anything is awaited: a tail without a reader is dropped
            await self._subscribe(tail)
        confirmed = self._confirmed.get(subscriber.job_id)
        if confirmed is not None:
            try:
                async with asyncio.timeout(self._settings.redis_timeout_s):
                    await asyncio.shield(confirmed)
            except TimeoutError:
                raise RedisUnavailable("Redis does not confirm a subscription.") from None
        await self._replay(subscriber, tail)

    def leave(self, subscriber: Subscriber) -> None:
        """The reader is gone; a job that nobody follows any more is unsubscribed."""
        subscriber.state = State.ENDED
        self._subscribers.discard(subscriber)
        self.traffic.frames += subscriber.frames
        if subscriber.task is not None:
            subscriber.task.cancel()
        tail = self._tails.get(subscriber.job_id)
        if tail is None:
            return
        tail.subscribers.discard(subscriber)
        if not tail.subscribers:
            del self._tails[subscriber.job_id]
            self._confirmed.pop(subscriber.job_id, None)
            self._spawn(self._unsubscribe(subscriber.job_id))

    def drain(self, reason: str = "draining") -> None:
        """Sends every reader away to come back elsewhere (protocol 4.7); to one that reads nothing, nothing can be said."""
        self._draining = True
        for subscriber in list(self._subscribers):
            if subscriber.state is not State.ENDED and subscriber.blocked_since is None:
                self.send_away(subscriber, reason)
        asyncio.get_running_loop().call_later(self._settings.web_drain_s, self._cut_off)

    def send_away(self, subscriber: Subscriber, reason: str) -> None:
        """Tells a reader to come back, and ends its response."""
        self.traffic.reconnects[reason] += 1
        subscriber.end(reconnect(reason), asyncio.get_running_loop().time(), reason)

    def _cut_off(self) -> None:
        """The drain is over. A request that were cancelled instead would be a fault of ours in the server's eyes."""
        for subscriber in list(self._subscribers):
            subscriber.fail("draining")

    def resume(self, subscriber: Subscriber) -> None:
        """A blocked reader takes data again: from the tail if its place is still there, else from the log."""
        if subscriber.state is State.LIVE:
            if self._draining:
                self.send_away(subscriber, "draining")
            elif (tail := self._tails.get(subscriber.job_id)) is not None:
                self._catch_up(subscriber, tail)

    # --- pushes ------------------------------------------------------------------------------------------------------

    async def run_forever(self) -> None:
        """Takes pushes until cancelled, and looks after the readers."""
        try:
            async with asyncio.TaskGroup() as chores:
                chores.create_task(self._pushes.listen_forever())
                chores.create_task(self._tick_forever())
                chores.create_task(self._check_forever())
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self, message: list[bytes]) -> None:
        kind = message[0]
        if kind == b"message":
            tail = self._tails.get(message[1][len(keys.LOG_PREFIX) :].decode())
            if tail is not None:
                self._add(tail, parse_push(message[2]))
        elif kind == b"subscribe":
            confirmed = self._confirmed.get(message[1][len(keys.LOG_PREFIX) :].decode())
            if confirmed is not None and not confirmed.done():
                confirmed.set_result(None)

    def _add(self, tail: Tail, push: Push) -> None:
        if tail.add(push):
            self._rounds.add(tail)

    async def _subscribe(self, tail: Tail) -> None:
        self._confirmed[tail.job_id] = asyncio.get_running_loop().create_future()
        await self._pushes.command("SUBSCRIBE", keys.log(tail.job_id))

    async def _unsubscribe(self, job_id: str) -> None:
        if job_id not in self._tails:  # else somebody follows it again, and has subscribed since
            await self._pushes.command("UNSUBSCRIBE", keys.log(job_id))

    def _catch_up(self, subscriber: Subscriber, tail: Tail) -> None:
        """Brings a live reader to the end of the tail in one write, or sends it to the log."""
        lacking = tail.since(subscriber.cursor)
        if lacking is None:
            self._fell_behind(subscriber, tail)
        elif lacking.n:
            body, n = lacking.frames, lacking.n
            if subscriber.merge and n > 1:
                body, n = joined(split_frames(body), self._settings.frame_limit, self.traffic)
            subscriber.cursor = lacking.after
            subscriber.frames += n
            self.traffic.size += len(body)
            now = asyncio.get_running_loop().time()
            if lacking.terminal:
                subscriber.end(body, now)
            else:
                subscriber.write(body, now)

    def _fell_behind(self, subscriber: Subscriber, tail: Tail) -> None:
        subscriber.state = State.REPLAYING
        subscriber.task = self._spawn(self._replay_alone(subscriber, tail))

    async def _replay(self, subscriber: Subscriber, tail: Tail) -> None:
        """Sends history from the log until the reader has reached the tail, or the terminal event."""
        count = PAGE
        self.traffic.replays += 1
        while subscriber.state is State.REPLAYING:
            if self._draining:
                self.send_away(subscriber, "draining")
                return
            page, more = await self._read(subscriber, count)
            count = min(PAGE, 2 * max(1, len(page)))  # of what fitted, so that little is read in vain
            if subscriber.state is not State.REPLAYING:
                return
            if page and outran(page[0].event, subscriber.cursor):
                await subscriber.write_slowly(REWIND, asyncio.get_running_loop().time())
                self.traffic.rewinds += 1
                subscriber.cursor = START
                continue
            if page and page[-1].event.terminal:
                await send_page(subscriber, page[:-1], self._settings.frame_limit, self.traffic)
                subscriber.cursor = page[-1].id
                if subscriber.state is State.REPLAYING:
                    subscriber.frames += 1
                    subscriber.end(Frame(page[-1].id, to_data(page[-1].event)).encode(), asyncio.get_running_loop().time())
                return
            await send_page(subscriber, page, self._settings.frame_limit, self.traffic)
            if more:
                continue
            if not page and not self._joins(subscriber, tail):
                # The log lacks what was pushed: it was erased, or lost a tail. What it holds counts, and `_check_logs` tells.
                tail.forget()
            if self._joins(subscriber, tail):
                subscriber.state = State.LIVE
                self._catch_up(subscriber, tail)

    def _joins(self, subscriber: Subscriber, tail: Tail) -> bool:
        """Whether the reader's place is in the tail, or past all the tail has seen so far."""
        last = tail.last
        return last is None or subscriber.cursor >= last or tail.since(subscriber.cursor) is not None

    async def _read(self, subscriber: Subscriber, count: int) -> tuple[list[Entry], bool]:
        """What comes next and makes one write, and whether the log may hold more."""
        try:
            entries = await self._log.read(subscriber.job_id, subscriber.cursor, count)
        except UNREACHABLE as error:
            raise RedisUnavailable("Redis is away.") from error
        page = at_once(entries)
        return page, len(page) < len(entries) or len(entries) == count

    async def _replay_alone(self, subscriber: Subscriber, tail: Tail) -> None:
        """A replay in mid-stream: while Redis is away the reader waits, with heartbeats, and tries again."""
        while subscriber.state is State.REPLAYING:
            try:
                await self._replay(subscriber, tail)
            except RedisUnavailable:
                await asyncio.sleep(0.5)
        subscriber.task = None

    # --- clocks ------------------------------------------------------------------------------------------------------

    async def _tick_forever(self) -> None:
        """Heartbeats, old age and dead sockets, for all readers from one timer."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_TICK_S - loop.time() % _TICK_S)  # on the beat: one wake-up for all that a second has to do
            now = loop.time()
            silent_since, old_since = now - self._silence_s, now - self._settings.max_connection_s
            for subscriber in list(self._subscribers):
                # Of thousands of quiet readers most have nothing due, and a call for each would be most of what they cost.
                if subscriber.blocked_since or subscriber.last_sent <= silent_since or subscriber.opened_at < old_since:
                    self._tick(subscriber, now)
            await self._pushes.watch(now)

    def _tick(self, subscriber: Subscriber, now: float) -> None:
        if subscriber.blocked_since is not None:  # ENDED too: its last frames may be what does not get out
            if now - subscriber.blocked_since > self._settings.stalled_reader_s:
                self.traffic.stalled += 1
                subscriber.fail("stalled")
        elif subscriber.state is State.ENDED:
            return
        elif now - subscriber.opened_at > self._settings.max_connection_s:
            self.send_away(subscriber, "connection age")
        elif now - subscriber.last_sent >= self._silence_s:
            subscriber.write(subscriber.heartbeat, now)

    async def _check_forever(self) -> None:
        while True:
            await self._check_after(self._settings.log_check_s)

    async def _check_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self._check_logs()

    async def _check_logs(self, patience_s: float = _ON_ITS_WAY_S) -> None:
        """Compares where live readers stand with what the logs hold: a lost push hangs nobody, a lost tail is told."""
        stood = {tail: _places(tail) for tail in self._tails.values()}
        try:
            last_ids = await self._log.last_ids([tail.job_id for tail in stood])
        except (*UNREACHABLE, RedisError) as error:
            log.debug("logs not compared", error=str(error))
            return
        behind: dict[Tail, EventId] = {}
        for (tail, places), last in zip(stood.items(), last_ids, strict=True):
            for subscriber, cursor in places:
                # Most stand where they should, and a call for each would be most of what thousands of quiet readers cost.
                if last is None or cursor > last or subscriber.ahead_since is not None:
                    self._compare(subscriber, tail, cursor, last)
                if last is not None and cursor < last:
                    behind[tail] = last
        if behind:
            await asyncio.sleep(patience_s)
            self._read_what_was_lost(behind)

    def _compare(self, subscriber: Subscriber, tail: Tail, stood: EventId, last: EventId | None) -> None:
        if not subscriber.takes_pushes:
            return
        now = asyncio.get_running_loop().time()
        if last is None:  # erased or expired, and its terminal event missed: the reader's return is told so
            self.send_away(subscriber, "the log is gone")
        elif stood <= last:
            subscriber.ahead_since = None
        elif subscriber.ahead_for(now) < self._settings.lease_s:
            self._check_again()  # its writer has a lease to write again what was lost, and nobody else writes within it
        else:
            log.warning("the log lost what a reader had", job=tail.job_id, reader=str(stood), log=str(last))
            tail.forget()
            self.rewind(subscriber, now)
            self._fell_behind(subscriber, tail)

    def _read_what_was_lost(self, behind: dict[Tail, EventId]) -> None:
        """Sends readers to the log who lack what it holds and no push has brought."""
        for tail, last in behind.items():
            for subscriber in list(tail.subscribers) if tail.lacks(last) else ():
                if subscriber.takes_pushes and subscriber.cursor < last:
                    self._fell_behind(subscriber, tail)

    def _check_again(self) -> None:
        if self._second_look is None or self._second_look.done():
            self._second_look = self._spawn(self._check_after(self._settings.lease_s + 0.01))  # timers may be early by 1 ms

    def rewind(self, subscriber: Subscriber, now: float) -> None:
        """The reader discards all that it holds; the log is replayed from its start (protocol 4.1)."""
        subscriber.write(REWIND, now)
        self.traffic.rewinds += 1
        subscriber.cursor = START
        subscriber.ahead_since = None
        subscriber.state = State.REPLAYING

    def _spawn(self, work: Coroutine[None, None, None]) -> "asyncio.Task[None]":
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _places(tail: Tail) -> list[tuple[Subscriber, EventId]]:
    """Where the live readers of a job stand."""
    live = State.LIVE
    return [(s, s.cursor) for s in tail.subscribers if s.state is live and s.blocked_since is None]
