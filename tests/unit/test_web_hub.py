"""web/hub.py without Redis: which of a reader's two sources, pushes and the log, may speak when."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from shared.errors import RedisUnavailable
from shared.event_log import Entry, EventLog
from shared.events import Token, to_data
from shared.ids import START, EventId
from shared.push import Push
from shared.settings import Settings
from tests.support.author import DONE
from tests.support.streams import parse_block
from tests.support.waiting import wait_until
from web.hub import Hub
from web.sse import HEARTBEAT, Frame
from web.subscriber import State, Subscriber
from web.tail import Tail

JOB = "job_" + "a" * 26


class FakeLog:
    """Token `n` at `1-n`. A read waits while `gate` is cleared."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.ended = False
        self.reads = 0
        self.most = 0
        """Entries that a read asked for, the last time."""
        self.gate = asyncio.Event()
        self.gate.set()

    async def read(self, _job_id: str, after: EventId, count: int) -> list[Entry]:
        self.reads += 1
        self.most = count
        await self.gate.wait()
        entries = [Entry(EventId(1, n), {b"t": word.encode()}) for n, word in enumerate(self.words, 1)]
        if self.ended:
            entries.append(Entry(EventId(1, len(entries) + 1), {b"e": to_data(DONE)}))
        return [entry for entry in entries if entry.id > after][:count]

    async def last_ids(self, job_ids: list[str]) -> list[EventId | None]:
        return [EventId(1, len(self.words)) if self.words else None for _ in job_ids]


def push(first: int, *words: str) -> Push:
    """What the log's script publishes for these words, the first of them `1-first`."""
    frames = [Frame(EventId(1, first + i), to_data(Token(word))).encode() for i, word in enumerate(words)]
    return Push(EventId(1, first - 1), EventId(1, first + len(words) - 1), len(words), False, b"".join(frames))


class Wire:
    """A reader's end: what was sent, and whether there is room for more."""

    def __init__(self) -> None:
        self.body = b""
        self.complete = False
        self.aborted = False
        self.room = asyncio.Event()
        self.room.set()

    async def send(self, message: Any) -> None:
        if not self.room.is_set():
            await self.room.wait()
        assert not self.complete, "sent after the end"
        self.body += message["body"]
        self.complete = not message["more_body"]

    def abort(self) -> None:
        self.aborted = True

    @property
    def ids(self) -> list[str]:
        return [parse_block(block)["id"] for block in self.body.split(b"\n\n") if block.startswith(b"id: ")]


@pytest.fixture
def log() -> FakeLog:
    return FakeLog()


@pytest.fixture
async def hub(log: FakeLog) -> AsyncIterator[Hub]:
    """Never connected: the test hands it the pushes."""
    hub = Hub(cast(Redis, None), cast(EventLog, log), Settings(redis_timeout_s=0.05, tail_bytes=4096, lease_s=0.5))
    yield hub
    for subscriber in list(hub._subscribers):
        hub.leave(subscriber)
    for task in hub._tasks:
        task.cancel()
    await asyncio.gather(*hub._tasks, return_exceptions=True)


@pytest.fixture
async def follow(hub: Hub) -> Callable[..., Any]:
    """Opens a reader at a cursor; its subscription is confirmed at once."""
    tail = hub._tails.setdefault(JOB, Tail(JOB, 4096))
    hub._confirmed[JOB] = asyncio.get_running_loop().create_future()
    hub._confirmed[JOB].set_result(None)
    tail.subscribers.add(cast(Subscriber, _Witness()))

    async def open_reader(cursor: EventId = START, *, merge: bool = True) -> tuple[Subscriber, Wire]:
        wire = Wire()
        subscriber = Subscriber(
            JOB, cursor, wire.send, heartbeat=HEARTBEAT, merge=merge, now=0.0, abort=wire.abort, on_ready=hub.resume
        )
        await hub.follow(subscriber)
        return subscriber, wire

    return open_reader


class _Witness:
    """Another reader, who keeps the tail alive and takes nothing."""

    takes_pushes = False
    state = State.REPLAYING


async def deliver(hub: Hub, *pushes: Push) -> None:
    """As if one read from the push connection had brought these."""
    for one in pushes:
        hub._add(hub._tails[JOB], one)
    await asyncio.sleep(0)


Follow = Callable[..., Any]


async def test_history_first_then_what_is_pushed(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a", "b"]
    _, wire = await follow(merge=False)
    await deliver(hub, push(3, "c"))
    assert wire.ids == ["1-1", "1-2", "1-3"]


async def test_all_that_one_read_brought_is_one_write(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a"]
    _, wire = await follow()
    before = hub.traffic.deliveries
    await deliver(hub, push(2, "b"), push(3, "c", "d"), push(5, "e"))
    assert wire.ids == ["1-1", "1-2", "1-3", "1-4", "1-5"]
    assert hub.traffic.deliveries == before + 1


async def test_a_log_that_is_ahead_of_the_pushes_doubles_nothing(hub: Hub, log: FakeLog, follow: Follow) -> None:
    """The entry is in the log and its push on the way: a newcomer reads it there, and the push passes it by."""
    await deliver(hub, push(1, "a"))
    log.words = ["a", "b", "c"]
    reader, wire = await follow(merge=False)
    assert reader.state is State.LIVE
    assert log.reads == 1
    await deliver(hub, push(2, "b"))
    await deliver(hub, push(3, "c"), push(4, "d"))
    assert wire.ids == ["1-1", "1-2", "1-3", "1-4"]


async def test_a_push_that_straddles_the_readers_place_sends_it_to_the_log(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a", "b"]
    _, wire = await follow(EventId(1, 1), merge=False)
    log.words = ["a", "b", "c"]
    await deliver(hub, push(2, "b", "c"))
    await wait_until(lambda: wire.ids == ["1-2", "1-3"])


async def test_a_lost_push_sends_the_reader_to_the_log(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a"]
    _, wire = await follow(merge=False)
    log.words = ["a", "b", "c", "d"]
    await deliver(hub, push(2, "b"), push(4, "d"))
    await wait_until(lambda: wire.ids == ["1-1", "1-2", "1-3", "1-4"])
    await deliver(hub, push(5, "e"))
    assert wire.ids[-1] == "1-5"


async def test_what_is_pushed_while_history_is_read_waits_its_turn(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a", "b"]
    log.gate.clear()
    opening = asyncio.create_task(follow(merge=False))
    await wait_until(lambda: log.reads == 1)
    await deliver(hub, push(2, "b"), push(3, "c"))
    log.gate.set()
    _, wire = await opening
    assert wire.ids == ["1-1", "1-2", "1-3"]


async def test_a_blocked_reader_is_skipped_and_catches_up_merged(hub: Hub, log: FakeLog, follow: Follow) -> None:
    """Protocol 4.5: "entries that pile up behind a slow reader are merged likewise"."""
    log.words = ["a"]
    reader, wire = await follow()
    wire.room.clear()
    await deliver(hub, push(2, "b"))
    assert reader.blocked_since is not None
    await deliver(hub, push(3, "c"))
    await deliver(hub, push(4, "d"))
    wire.room.set()
    await wait_until(lambda: reader.takes_pushes)
    assert wire.ids == ["1-1", "1-2", "1-4"]
    assert b'"n":2' in wire.body
    assert log.reads == 1


async def test_one_that_fell_behind_the_tail_reads_the_log(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a"]
    reader, wire = await follow(merge=False)
    wire.room.clear()
    words = ["x" * 1000] * 9
    for n, word in enumerate(words, 2):
        await deliver(hub, push(n, word))
    log.words += words
    wire.room.set()
    await wait_until(lambda: reader.cursor == EventId(1, 10) and reader.takes_pushes)
    assert wire.ids == [f"1-{n}" for n in range(1, 11)]
    assert log.reads > 1


async def test_of_large_entries_no_more_is_read_at_once_than_is_written_at_once(hub: Hub, log: FakeLog, follow: Follow) -> None:
    """A reader may hang there, and a thousand of them are megabytes; but none of them is left out."""
    log.words = ["x" * 30_000] * 50
    reader, wire = await follow(merge=False)
    assert wire.ids == [f"1-{n}" for n in range(1, 51)]
    assert log.most == 4, "two fit into one write"
    assert reader.takes_pushes


async def test_the_terminal_push_completes_the_response(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a"]
    reader, wire = await follow()
    end = Frame(EventId(1, 2), to_data(DONE)).encode()
    await deliver(hub, Push(EventId(1, 1), EventId(1, 2), 1, True, end))
    assert wire.complete
    assert reader.state is State.ENDED


async def test_the_check_tells_what_pushes_did_not(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a"]
    _, wire = await follow(merge=False)
    log.words = ["a", "b"]
    await hub._check_logs(patience_s=0)
    await wait_until(lambda: wire.ids == ["1-1", "1-2"])


async def test_the_check_waits_for_a_push_that_is_on_its_way(hub: Hub, log: FakeLog, follow: Follow) -> None:
    """A thousand readers sent to the log for one event that is a millisecond late cost more than the event."""
    log.words = ["a"]
    _, wire = await follow(merge=False)
    log.words = ["a", "b"]
    check = asyncio.create_task(hub._check_logs())
    await asyncio.sleep(0)
    await deliver(hub, push(2, "b"))
    await check
    assert (wire.ids, log.reads) == (["1-1", "1-2"], 1)


async def test_an_unconfirmed_subscription_is_redis_being_away(hub: Hub, log: FakeLog) -> None:
    wire = Wire()
    reader = Subscriber(JOB, START, wire.send, heartbeat=b"", merge=True, now=0.0, abort=wire.abort, on_ready=hub.resume)
    with pytest.raises(RedisUnavailable):
        await hub.follow(reader)
    hub.leave(reader)
    assert (len(hub), hub.followed) == (0, 0)


async def test_an_ended_log_that_vanished_hangs_nobody(hub: Hub, log: FakeLog) -> None:
    """It expired between the look at its record and the read: the reader comes again, and is told 404."""
    wire = Wire()
    reader = Subscriber(JOB, START, wire.send, heartbeat=b"", merge=True, now=0.0, abort=wire.abort, on_ready=hub.resume)
    await hub.follow(reader, ended_at=EventId(1, 9))
    assert wire.complete
    assert b"reconnect" in wire.body


async def test_a_log_that_lacks_what_was_pushed_is_not_read_over_and_over(hub: Hub, log: FakeLog, follow: Follow) -> None:
    """Erased, or a tail lost in a failover: the reader waits for what comes next, or for the check to send it away."""
    log.words = ["a"]
    hub._tails[JOB].add(push(8, "h"))

    reader, wire = await asyncio.wait_for(follow(), timeout=5)

    assert reader.state is State.LIVE
    assert wire.ids == ["1-1"]
    assert log.reads == 2

    log.words = []
    await hub._check_logs()
    assert wire.complete
    assert b"the log is gone" in wire.body


async def test_two_readers_at_once_that_come_to_an_unfollowed_job_are_both_followed(
    hub: Hub, log: FakeLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first waits for its SUBSCRIBE to be sent while the second comes and leaves: the tail is not lost with it."""
    log.words = ["a"]
    sent = asyncio.Event()

    async def send(*words: str) -> None:
        if words[0] == "SUBSCRIBE":
            await sent.wait()
            if JOB in hub._confirmed:
                hub._confirmed[JOB].set_result(None)

    monkeypatch.setattr(hub._pushes, "command", send)
    wires = [Wire(), Wire()]
    readers = [
        Subscriber(JOB, START, wire.send, heartbeat=b"", merge=False, now=0.0, abort=wire.abort, on_ready=hub.resume)
        for wire in wires
    ]
    first = asyncio.create_task(hub.follow(readers[0]))
    await asyncio.sleep(0)
    second = asyncio.create_task(hub.follow(readers[1]))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    hub.leave(readers[1])
    sent.set()
    await first
    await deliver(hub, push(2, "b"))
    assert wires[0].ids == ["1-1", "1-2"]


# --- a log that lost what its readers have -------------------------------------------------------------------------------


async def test_what_its_writer_writes_again_in_time_no_reader_notices(hub: Hub, log: FakeLog, follow: Follow) -> None:
    log.words = ["a", "b", "c"]
    reader, wire = await follow(merge=False)
    log.words = ["a"]
    await hub._check_logs()
    log.words = ["a", "b", "c", "d"]
    await deliver(hub, push(2, "b", "c"), push(4, "d"))
    await hub._check_logs()
    assert (wire.ids, reader.ahead_since) == (["1-1", "1-2", "1-3", "1-4"], None)
    assert b"rewind" not in wire.body


async def test_after_a_lease_without_it_they_are_told(hub: Hub, log: FakeLog, follow: Follow) -> None:
    """Protocol 4.1. The second look needs no further cause."""
    log.words = ["a", "b", "c"]
    _, wire = await follow(merge=False)
    log.words = ["a"]
    await hub._check_logs()
    assert b"rewind" not in wire.body
    await wait_until(lambda: b"rewind" in wire.body and wire.ids[-1] == "1-1")
