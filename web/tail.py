"""The newest frames of one followed job, encoded once and shared by all its readers. No framework, no Redis."""

from collections import deque

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

    def lacks(self, event_id: EventId) -> bool:
        """Whether no push has brought the event."""
        return not self._pushes or self._pushes[-1].after < event_id

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

    def since(self, cursor: EventId) -> Push | None:
        """What a reader at `cursor` lacks, as if it had been pushed at once; of `n` 0 when it has everything. None when the
        cursor has no place here.

        A reader may stand past the tail's end: it read the log, which is ahead of the pushes. Readers stand at or near the
        end, so the search goes backwards.
        """
        pushes = self._pushes
        if not pushes or cursor >= pushes[-1].after:
            return Push(cursor, cursor, 0, False, b"")
        for i, push in enumerate(reversed(pushes), 1):
            if push.before == cursor:
                return push if i == 1 else _joined([pushes[-k] for k in range(i, 0, -1)])
            if push.before < cursor:
                return None
        return None


def _joined(pushes: list[Push]) -> Push:
    last = pushes[-1]
    frames = b"".join([push.frames for push in pushes])
    return Push(pushes[0].before, last.after, sum([push.n for push in pushes]), last.terminal, frames)
