"""web/subscriber.py: a reader is written to without waiting, whatever its transport does."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import pytest

from shared.ids import START
from tests.support.waiting import wait_until
from web.subscriber import State, Subscriber


class Transport:
    """As a server's `send`: waits for room before it takes anything, and may fail."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.complete = False
        self.aborted = 0
        self.room = asyncio.Event()
        self.room.set()
        self.fault: Exception | None = None

    async def send(self, message: MutableMapping[str, Any]) -> None:
        while not self.room.is_set():
            await self.room.wait()
        if self.fault is not None:
            raise self.fault
        self.sent.append(message["body"])
        self.complete = not message["more_body"]

    def put(self, body: bytes) -> bool:
        if not self.room.is_set():
            return False
        if self.fault is not None:
            raise self.fault
        self.sent.append(body)
        return True

    def abort(self) -> None:
        self.aborted += 1


@pytest.fixture
def transport() -> Transport:
    return Transport()


@pytest.fixture
def ready() -> list[Subscriber]:
    """Who said that it takes data again."""
    return []


@pytest.fixture(params=[False, True], ids=["send", "put"])
def reader(transport: Transport, ready: list[Subscriber], request: pytest.FixtureRequest) -> Subscriber:
    """On a server that lends nothing but `send`, and on one that lends `put` too."""
    return Subscriber(
        "j", START, transport.send, heartbeat=b": hb\n\n", merge=True, now=1.0, abort=transport.abort, on_ready=ready.append,
        put=transport.put if request.param else None,
    )  # fmt: skip


def test_it_begins_with_history(reader: Subscriber) -> None:
    assert (reader.state, reader.takes_pushes, reader.last_sent) == (State.REPLAYING, False, 1.0)


async def test_a_write_is_done_when_it_returns(reader: Subscriber, transport: Transport) -> None:
    reader.write(b"a", 2.0)
    assert (transport.sent, reader.blocked_since, reader.task, reader.last_sent) == ([b"a"], None, None, 2.0)


async def test_a_full_transport_blocks_its_reader_alone(
    reader: Subscriber, transport: Transport, ready: list[Subscriber]
) -> None:
    reader.state = State.LIVE
    transport.room.clear()
    reader.write(b"a", 2.0)  # returns at once
    assert (reader.takes_pushes, reader.blocked_since, transport.sent) == (False, 2.0, [])
    transport.room.set()
    await wait_until(lambda: ready == [reader])
    assert (transport.sent, reader.takes_pushes, reader.task) == ([b"a"], True, None)


async def test_leaving_a_blocked_reader_cancels_its_write(reader: Subscriber, transport: Transport) -> None:
    transport.room.clear()
    reader.write(b"a", 2.0)
    assert reader.task is not None
    reader.task.cancel()
    await asyncio.gather(reader.task, return_exceptions=True)
    transport.room.set()
    assert transport.sent == []


async def test_an_end_completes_the_response(reader: Subscriber, transport: Transport) -> None:
    reader.end(b"last", 2.0)
    assert (transport.sent, transport.complete, reader.state) == ([b"last"], True, State.ENDED)


@pytest.mark.parametrize("fault", [ConnectionResetError(), RuntimeError("the response is complete already")])
@pytest.mark.parametrize("blocked", [False, True])
async def test_a_fault_ends_this_reader_and_disturbs_no_other(
    reader: Subscriber, transport: Transport, fault: Exception, blocked: bool
) -> None:
    transport.fault = fault
    if blocked:
        transport.room.clear()
    reader.write(b"a", 2.0)
    transport.room.set()
    await wait_until(lambda: reader.state is State.ENDED)
    assert transport.aborted == 1


async def test_a_replay_waits_for_room(reader: Subscriber, transport: Transport) -> None:
    transport.room.clear()
    writing = asyncio.create_task(reader.write_slowly(b"a", 2.0))
    await asyncio.sleep(0)
    assert reader.blocked_since == 2.0
    transport.room.set()
    await writing
    assert reader.takes_pushes is False, "it is still replaying"
    assert transport.sent == [b"a"]
