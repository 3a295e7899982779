"""Replays of ended logs: read once for all who stand at one place, and kept within a bound."""

import asyncio
from typing import Any, cast

import pytest

from shared.errors import RedisUnavailable
from shared.event_log import Entry, EventLog
from shared.events import Started, to_data
from shared.ids import START, EventId
from shared.settings import Settings
from tests.support.author import DONE
from tests.support.streams import parse_block
from web.replays import Replays
from web.sse import reconnect
from web.subscriber import Subscriber
from web.traffic import Traffic

JOB = "job_" + "a" * 26


class EndedLog:
    """`words` as tokens from `1-1` on, then `done`."""

    def __init__(self, words: list[str]) -> None:
        self.reads = 0
        self.answers = True
        self.entries = [Entry(EventId(1, n), {b"t": word.encode()}) for n, word in enumerate(words, 1)]
        self.entries.append(Entry(EventId(1, len(words) + 1), {b"e": to_data(DONE)}))

    @property
    def last(self) -> EventId:
        return self.entries[-1].id

    async def read(self, _job_id: str, after: EventId, count: int) -> list[Entry]:
        self.reads += 1
        await asyncio.sleep(0)
        if not self.answers:
            raise ConnectionRefusedError
        return [entry for entry in self.entries if entry.id > after][:count]


class Wire:
    def __init__(self) -> None:
        self.body = b""
        self.complete = False

    async def send(self, message: Any) -> None:
        await asyncio.sleep(0)
        self.body += message["body"]
        self.complete = not message["more_body"]

    @property
    def frames(self) -> list[dict[str, str]]:
        return [parse_block(block) for block in self.body.split(b"\n\n") if block]


def replays_of(log: EndedLog, replay_cache_bytes: int = 1_000_000) -> Replays:
    settings = Settings(replay_cache_bytes=replay_cache_bytes)
    return Replays(cast(EventLog, log), settings, Traffic(), lambda reader, why: reader.end(reconnect(why), 0.0))


async def replay(replays: Replays, log: EndedLog, cursor: EventId = START, *, merge: bool = True) -> Wire:
    wire = Wire()
    reader = Subscriber(
        JOB, cursor, wire.send, heartbeat=b"", merge=merge, now=0.0, abort=lambda: None, on_ready=lambda _: None
    )
    await replays.send(reader, log.last, draining=lambda: False)
    if reader.task is not None:
        await reader.task
    assert wire.complete
    return wire


async def test_all_that_come_at_once_share_one_read() -> None:
    log = EndedLog(["a", "b", "c"])
    replays = replays_of(log)
    wires = await asyncio.gather(*(replay(replays, log) for _ in range(50)))
    assert log.reads == 1
    assert {wire.body for wire in wires} == {wires[0].body}
    assert [frame["id"] for frame in wires[0].frames] == ["1-3", "1-4"]


async def test_who_stands_elsewhere_or_wants_nothing_merged_gets_its_own() -> None:
    log = EndedLog(["a", "b", "c"])
    replays = replays_of(log)
    assert [f["id"] for f in (await replay(replays, log, EventId(1, 2))).frames] == ["1-3", "1-4"]
    assert [f["id"] for f in (await replay(replays, log, merge=False)).frames] == ["1-1", "1-2", "1-3", "1-4"]


async def test_a_long_log_comes_in_several_writes_without_a_hole() -> None:
    log = EndedLog(["x" * 100] * 2000)
    replays = replays_of(log)
    wire = await replay(replays, log)
    assert wire.body.count(b"x" * 100) == 2000
    assert max(map(len, wire.body.split(b"\n\n"))) <= 64 * 1024 + len("id: 1-2000\ndata: ")
    assert wire.frames[-1]["id"] == "1-2001"
    reads = log.reads
    assert (await replay(replays, log)).body == wire.body
    assert log.reads == reads


async def test_what_does_not_fit_is_read_again_and_the_oldest_goes_first() -> None:
    log = EndedLog(["a", "b", "c"])
    await replay(nothing_kept := replays_of(log, 0), log)
    await replay(nothing_kept, log)
    assert log.reads == 2
    size = len((await replay(replays_of(log), log)).body)
    log.reads = 0
    room_for_one = replays_of(log, size)
    for cursor in (START, EventId(1, 1), START):
        await replay(room_for_one, log, cursor)
    assert log.reads == 3


async def test_one_that_fails_to_read_leaves_the_next_one_to_try() -> None:
    log = EndedLog(["a"])
    replays = replays_of(log)
    log.answers = False
    with pytest.raises(RedisUnavailable):
        await replay(replays, log)
    log.answers = True
    assert len((await replay(replays, log)).frames) == 2


async def test_an_attempt_that_began_elsewhere_makes_the_reader_begin_anew() -> None:
    """The log lost what the reader has, and was ended since."""
    log = EndedLog(["a", "b"])
    started = Started(attempt=2, model="m", worker="w", reason="takeover", reset=True, after="1-1")
    log.entries[-1:] = [Entry(EventId(2, 0), {b"e": to_data(started)}), Entry(EventId(2, 1), {b"e": to_data(DONE)})]
    wire = await replay(replays_of(log), log, EventId(1, 2))
    assert b"rewind" in wire.body
