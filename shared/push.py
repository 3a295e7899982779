"""What a log tells those who follow it: one message for what one script wrote. No I/O.

    <cursor before> <cursor after> <n> <.|!>\\n<n ready-made frames>

A reader that stands exactly at `before` may take the frames as they are and then stands at `after`; anyone else reads the log.
"""

import msgspec

from shared.ids import EventId


class Push(msgspec.Struct, frozen=True, gc=False):
    """`n` frames, one an entry, encoded once for every reader. `terminal`: the last of them ends the log."""

    before: EventId
    after: EventId
    n: int
    terminal: bool
    frames: bytes


def parse_push(message: bytes) -> Push:
    """Reads a message that `lua/_common.lua` wrote. Raises ValueError when it was not."""
    head, _, frames = message.partition(b"\n")
    before, after, n, mark = head.split(b" ")
    return Push(EventId.from_redis(before), EventId.from_redis(after), int(n), mark == b"!", frames)
