"""A page of history on its way to one reader."""

import asyncio
from collections.abc import Iterable
from typing import Final

from shared.event_log import Entry
from shared.events import AnyEvent, Started, to_data
from shared.ids import START, EventId
from web.sse import Frame, merged
from web.subscriber import Subscriber
from web.traffic import Traffic

CHUNK: Final = 64 * 1024
"""Bytes of history read and written at once: large enough to be few, small enough that a reader that hangs holds little. A
thousand ordinary tokens are less."""


def at_once(entries: list[Entry]) -> list[Entry]:
    """Those that make one write: at least one. The rest is read again, for a reader may hang here for half a minute, and a
    page of large entries is megabytes."""
    size = 0
    for i, entry in enumerate(entries):
        size += sum(map(len, entry.fields.values()))
        if i and size > CHUNK:
            return entries[:i]
    return entries


def outran(event: AnyEvent, cursor: EventId) -> bool:
    """Whether what follows a reader's cursor is an attempt that began elsewhere: the log lost what the reader has."""
    return isinstance(event, Started) and cursor != START and event.after != str(cursor)


async def send_page(subscriber: Subscriber, page: list[Entry], frame_limit: int, traffic: Traffic) -> None:
    """Sends the entries, merged where the reader wants that, and waits for room in between."""
    frames = (Frame(entry.id, to_data(entry.event)) for entry in page)
    size = 0
    chunk: list[bytes] = []
    for frame in merged(frames, frame_limit) if subscriber.merge else frames:
        encoded = frame.encode()
        if chunk and size + len(encoded) > CHUNK:
            await _send(subscriber, chunk, traffic)
            size, chunk = 0, []
        chunk.append(encoded)
        size += len(encoded)
        traffic.merged_frames += frame.n > 1
        subscriber.cursor = frame.id
    if chunk:
        await _send(subscriber, chunk, traffic)


def joined(frames: Iterable[Frame], frame_limit: int, traffic: Traffic) -> tuple[bytes, int]:
    """The frames merged into one body, and how many they are then."""
    whole = list(merged(frames, frame_limit))
    traffic.merged_frames += sum(frame.n > 1 for frame in whole)
    return b"".join([frame.encode() for frame in whole]), len(whole)


async def _send(subscriber: Subscriber, chunk: list[bytes], traffic: Traffic) -> None:
    body = b"".join(chunk)
    subscriber.frames += len(chunk)
    traffic.size += len(body)
    await subscriber.write_slowly(body, asyncio.get_running_loop().time())
