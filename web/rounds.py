"""What the tails took in, on its way to their readers: in rounds, a slice at a time.

A round visits all readers of a tail, and each gets, in one write, all that it lacks when its turn comes. So what is pushed
while a round is under way goes out with the rest of it, and to those who had their turn with the next one: an event waits for
one round at most, and the more there is to send, the more of it goes into a write. Between two slices the process reads what
has come.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterator
from typing import Final

from web.subscriber import State, Subscriber
from web.tail import Tail
from web.traffic import Traffic

_SLICE: Final = 64
"""Readers visited before what has come is read: a millisecond."""


class Rounds:
    def __init__(self, traffic: Traffic, fell_behind: Callable[[Subscriber, Tail], None]) -> None:
        """`fell_behind` is called for a reader whose place is not in the tail any more."""
        self._traffic = traffic
        self._fell_behind = fell_behind
        self._due: deque[Tail] = deque()
        self._left: dict[Tail, Iterator[Subscriber]] = {}
        """Whom a round that is under way has still to visit."""
        self._again: set[Tail] = set()
        """Those due that took something in since their round began, or whose round has yet to begin."""
        self._is_scheduled = False

    def add(self, tail: Tail) -> None:
        """The tail took something in."""
        if tail not in self._again:
            self._again.add(tail)
            if tail not in self._left:
                self._due.append(tail)
                if not self._is_scheduled:
                    self._is_scheduled = True
                    asyncio.get_running_loop().call_soon(self._go_on)

    def _go_on(self) -> None:
        """One slice of the rounds that are due, turn by turn."""
        self._is_scheduled = False
        loop = asyncio.get_running_loop()
        now, room = loop.time(), _SLICE
        while self._due and room > 0:
            tail = self._due.popleft()
            left = self._left.pop(tail, None)
            if left is None:
                self._again.discard(tail)
                left = iter(list(tail.subscribers))
            room = self._visit(tail, left, room, now)
            if room <= 0:
                self._left[tail] = left
                self._due.append(tail)
            elif tail in self._again:
                self._due.append(tail)
        if self._due:
            self._is_scheduled = True
            loop.call_soon(self._go_on)

    def _visit(self, tail: Tail, readers: Iterator[Subscriber], room: int, now: float) -> int:
        """Visits at most `room` of the readers, and returns how much room is left: none where some may be left, too."""
        live, cursor, lacking, writes, size = State.LIVE, None, None, 0, 0
        for subscriber in readers:
            # `takes_pushes`, without the call: this is run for every event and reader.
            if subscriber.state is live and subscriber.blocked_since is None:
                if subscriber.cursor is not cursor:
                    cursor = subscriber.cursor
                    lacking = tail.since(cursor)
                if lacking is None:
                    self._fell_behind(subscriber, tail)
                elif lacking.n:
                    writes += 1
                    size += len(lacking.frames)
                    subscriber.frames += lacking.n
                    subscriber.cursor = lacking.after
                    if lacking.terminal:
                        subscriber.end(lacking.frames, now)
                    else:
                        subscriber.write(lacking.frames, now)
            room -= 1
            if not room:
                break
        self._traffic.deliveries += writes
        self._traffic.size += size
        return room
