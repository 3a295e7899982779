"""Frames of the event stream, and merging (protocol 3 and 4). No I/O, no framework.

A frame is one `id:` line and one `data:` line of JSON. Merging joins neighbours of one kind by joining the JSON text between
their quotes: what was encoded once is never decoded again.
"""

import random
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

import msgspec

from shared.events import ToolCall, decode, to_data
from shared.ids import EventId

HEARTBEAT: Final = b": hb\n\n"
HEARTBEAT_EVENT: Final = b'data: {"type":"heartbeat"}\n\n'
REWIND: Final = b'data: {"type":"rewind"}\n\n'

_TEXT_HEADS: Final = tuple(b'{"type":"%s","text":"' % kind for kind in (b"token", b"reasoning", b"refusal"))
_TOOL_CALL_HEAD: Final = b'{"type":"tool_call",'
_N_ROOM: Final = len(b',"n":9007199254740991') + len(b"id: 9007199254740991-9007199254740991\ndata: \n\n")


class Frame(NamedTuple):
    """`id` is the cursor of a reader that has taken it in; `n` entries are in it."""

    id: EventId
    data: bytes
    n: int = 1

    def encode(self) -> bytes:
        return b"id: %d-%d\ndata: %s\n\n" % (self.id.attempt, self.id.seq, self.data)


def retry_line(least_ms: int, most_ms: int) -> bytes:
    """Random, so that a herd does not come back as one (protocol 4.4)."""
    return b"retry: %d\n\n" % random.randint(least_ms, most_ms)


def reconnect(reason: str) -> bytes:
    """Tells a reader to come back: anything that passes by itself (protocol 4.3)."""
    return b"data: %s\n\n" % msgspec.json.encode({"type": "reconnect", "reason": reason})


def split_frames(frames: bytes) -> Iterator[Frame]:
    """The frames of a push or a tail, apart again. JSON has no bare newline, so a blank line always ends a frame."""
    for block in frames.split(b"\n\n"):
        if block:
            id_line, _, data_line = block.partition(b"\n")
            yield Frame(EventId.from_redis(id_line[4:]), data_line[6:])


def merged(frames: Iterable[Frame], limit: int) -> Iterator[Frame]:
    """Joins neighbours as far as protocol 3 allows: one attempt, one kind, at most `limit` bytes a frame."""
    run: _Run | None = None
    for frame in frames:
        kind, piece = _piece(frame.data)
        if run is not None and run.takes(frame.id, kind, len(piece), limit):
            run.add(frame.id, piece)
            continue
        if run is not None:
            yield run.frame()
        run = None
        if kind is None:
            yield frame
        else:
            run = _Run(frame, kind, piece)
    if run is not None:
        yield run.frame()


class _Run:
    """Neighbours that become one frame."""

    __slots__ = ("_first", "_kind", "_last_id", "_pieces", "_size")

    def __init__(self, first: Frame, kind: bytes, piece: bytes) -> None:
        self._first = first
        self._kind = kind
        self._last_id = first.id
        self._pieces = [piece]
        self._size = len(first.data) + _N_ROOM

    def takes(self, next_id: EventId, kind: bytes | None, size: int, limit: int) -> bool:
        return kind == self._kind and next_id.attempt == self._last_id.attempt and self._size + size <= limit

    def add(self, event_id: EventId, piece: bytes) -> None:
        self._last_id = event_id
        self._pieces.append(piece)
        self._size += len(piece)

    def frame(self) -> Frame:
        n = len(self._pieces)
        if n == 1:
            return self._first
        if self._kind.startswith(_TOOL_CALL_HEAD):
            return Frame(self._last_id, self._tool_call(n), n)
        return Frame(self._last_id, b'%s%s","n":%d}' % (self._kind, b"".join(self._pieces), n), n)

    def _tool_call(self, n: int) -> bytes:
        first = decode(self._first.data)
        assert isinstance(first, ToolCall), "runs are of one kind"
        arguments: str = msgspec.json.decode(b'"%s"' % b"".join(self._pieces))
        return to_data(msgspec.structs.replace(first, arguments=arguments), n)


def _piece(data: bytes) -> tuple[bytes | None, bytes]:
    """What a frame's data is joined by: its kind, and the JSON text between the quotes. No kind: it stands alone."""
    for head in _TEXT_HEADS:
        if data.startswith(head) and data.endswith(b'"}'):
            return head, data[len(head) : -2]
    if data.startswith(_TOOL_CALL_HEAD):
        return _tool_call_piece(data)
    return None, b""


def _tool_call_piece(data: bytes) -> tuple[bytes | None, bytes]:
    """Deltas of one call follow each other; one that brings an `id` or a `name` stands alone, lest one of two gets lost."""
    call = decode(data)
    if not isinstance(call, ToolCall) or call.id is not None or call.name is not None:
        return None, b""
    return _TOOL_CALL_HEAD + b"%d" % call.index, msgspec.json.encode(call.arguments)[1:-1]
