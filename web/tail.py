"""The newest frames of one followed job, encoded once and shared by all its readers. No framework, no Redis."""

from collections import deque
from itertools import islice

from shared.ids import EventId
from shared.push import Push
from web.subscriber import Subscriber


class Tail:
    """A run of pushes without a hole: each begins where the one before it ended."""

    def __init__(self, job_id: str, limit: int) -> None:
        """`limit` bounds the bytes of frames kept; a reader that fell behind the oldest of them reads the log."""
        self.job_id = job_id
        self.subscribers: set[Subscriber] = set()
        self.ended = False
        self._limit = limit
        self._size = 0
        self._pushes: deque[Push] = deque()

    @property
    def last(self) -> EventId | None:
        """The cursor of a reader that has everything the tail saw; None before the first push."""
        return self._pushes[-1].after if self._pushes else None

    def add(self, push: Push) -> bool:
        """Takes a push in; False when it was here before. After a hole the tail begins anew: whoever stands before the hole
        finds no place in it and reads the log."""
        last = self.last
        if last is not None and push.after <= last:
            return False
        if last is not None and push.before != last:
            self.forget()
        self._pushes.append(push)
        self._size += len(push.frames)
        self.ended |= push.terminal
        while self._size > self._limit and len(self._pushes) > 1:
            self._size -= len(self._pushes.popleft().frames)
        return True

    def forget(self) -> None:
        """The log is not what the tail saw any more."""
        self._pushes.clear()
        self._size = 0
        self.ended = False

    def after(self, cursor: EventId) -> list[Push] | None:
        """What a reader at `cursor` lacks, oldest first; None when the cursor has no place here.

        A reader may stand past the tail's end: it read the log, which is ahead of the pushes. Readers stand at or near the
        end, so the search goes backwards.
        """
        if not self._pushes or cursor >= self._pushes[-1].after:
            return []
        for i, push in enumerate(reversed(self._pushes), 1):
            if push.before == cursor:
                return list(islice(self._pushes, len(self._pushes) - i, None))
            if push.before < cursor:
                return None
        return None
