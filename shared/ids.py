"""Job ids and event ids: parse, order, next (protocol 3). No I/O."""

import base64
import re
import secrets
from typing import NewType

import msgspec

from shared.errors import BadCursor

JobId = NewType("JobId", str)
"""`job_` and 26 characters of base32, 130 random bits: unguessable, and safe in a URL, a file name and a Redis key."""

_JOB_ID = re.compile(r"job_[a-z2-7]{26}")

MAX_NUMBER = 2**53 - 1
"""The greatest attempt or seq: what a JavaScript number holds exactly (protocol 3)."""

_EVENT_ID = re.compile(r"(0|[1-9][0-9]{0,15})-(0|[1-9][0-9]{0,15})")


def new_job_id() -> JobId:
    # One call for all the randomness: a choice a character cost 60 µs of every submit.
    return JobId("job_" + base64.b32encode(secrets.token_bytes(17))[:26].decode().lower())


def is_job_id(text: str) -> bool:
    return _JOB_ID.fullmatch(text) is not None


class EventId(msgspec.Struct, frozen=True, order=True, gc=False):
    """An event's place in its job's log; also a reader's cursor. Ordered as Redis orders stream ids."""

    attempt: int
    seq: int

    def __str__(self) -> str:
        return f"{self.attempt}-{self.seq}"

    def next(self) -> "EventId":
        """The id of the next event of the same attempt."""
        return EventId(self.attempt, self.seq + 1)

    def plus(self, n: int) -> "EventId":
        """The id `n` events later in the same attempt."""
        return EventId(self.attempt, self.seq + n)

    @classmethod
    def parse(cls, text: str) -> "EventId":
        """Reads `<attempt>-<seq>`, both decimal and ≤ 2^53−1 (protocol 3).

        Raises:
            BadCursor: for every other form, `$` and a bare number among them.
        """
        match = _EVENT_ID.fullmatch(text)
        if match is None:
            raise _bad_cursor(text)
        attempt, seq = int(match[1]), int(match[2])
        if attempt > MAX_NUMBER or seq > MAX_NUMBER:
            raise _bad_cursor(text)
        return cls(attempt, seq)

    @classmethod
    def from_redis(cls, raw: bytes) -> "EventId":
        """Reads an id that Redis wrote; Redis is trusted with the form."""
        attempt, _, seq = raw.partition(b"-")
        return cls(int(attempt), int(seq))


START = EventId(0, 0)
"""The cursor of a reader that has nothing yet."""

QUEUED = EventId(0, 1)
"""The id of every log's first event."""


def _bad_cursor(text: str) -> BadCursor:
    shown = text if len(text) <= 40 else text[:40] + "…"
    return BadCursor(f"{shown!r} is not an event id: send the id of the last event you received, as 1-17.")
