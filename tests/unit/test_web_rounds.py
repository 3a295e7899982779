"""web/rounds.py: who gets what when, where more is pushed than can be sent at once."""

import asyncio
from collections.abc import Callable, MutableMapping
from typing import Any

import pytest

from shared.ids import EventId
from shared.push import Push
from tests.support.waiting import wait_until
from web.rounds import _SLICE, Rounds
from web.subscriber import State, Subscriber
from web.tail import Tail
from web.traffic import Traffic

JOB = "job_" + "a" * 26


def push(seq: int, *, terminal: bool = False) -> Push:
    return Push(EventId(1, seq - 1), EventId(1, seq), 1, terminal, b"%d " % seq)


class Reader:
    """Live at `1-1`. `on_write`, where given, is called for each write."""

    def __init__(self, on_write: Callable[[], object] | None = None) -> None:
        self.writes: list[bytes] = []
        self.on_write = on_write
        self.complete = False
        self.subscriber = Subscriber(
            JOB, EventId(1, 1), self._send, heartbeat=b"", merge=True, now=0.0, abort=lambda: None, on_ready=lambda _: None
        )
        self.subscriber.state = State.LIVE

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        self.writes.append(message["body"])
        self.complete = not message["more_body"]
        if self.on_write is not None:
            self.on_write()


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def lost() -> list[Subscriber]:
    """Those that have no place in the tail."""
    return []


@pytest.fixture
def rounds(traffic: Traffic, lost: list[Subscriber]) -> Rounds:
    return Rounds(traffic, lambda subscriber, _tail: lost.append(subscriber))


def tail_of(*readers: Reader) -> Tail:
    tail = Tail(JOB, 4096)
    tail.add(push(1))
    tail.subscribers.update(reader.subscriber for reader in readers)
    return tail


def take(rounds: Rounds, tail: Tail, *pushes: Push) -> None:
    for one in pushes:
        tail.add(one)
        rounds.add(tail)


async def test_all_that_was_pushed_before_its_turn_is_one_write(rounds: Rounds, traffic: Traffic) -> None:
    reader = Reader()
    take(rounds, tail_of(reader), push(2), push(3), push(4))
    await asyncio.sleep(0)
    assert reader.writes == [b"2 3 4 "]
    assert (reader.subscriber.cursor, reader.subscriber.frames, traffic.deliveries) == (EventId(1, 4), 3, 1)


async def test_what_comes_in_mid_round_goes_out_with_the_rest_of_it(rounds: Rounds) -> None:
    """And to those who had their turn with the next round: nothing twice, nothing left out, nobody waits for two rounds."""
    readers = [Reader() for _ in range(3 * _SLICE)]
    tail = tail_of(*readers)
    take(rounds, tail, push(2))
    await asyncio.sleep(0)  # one slice
    take(rounds, tail, push(3))
    await wait_until(lambda: all(b"".join(reader.writes) == b"2 3 " for reader in readers))
    assert sorted(len(reader.writes) for reader in readers) == [1] * 2 * _SLICE + [2] * _SLICE


async def test_between_two_slices_others_have_their_turn(rounds: Rounds) -> None:
    done: list[str] = []
    crowd = [Reader(lambda: done.append("crowd")) for _ in range(2 * _SLICE)]
    alone = Reader(lambda: done.append("alone"))
    take(rounds, tail_of(*crowd), push(2))
    take(rounds, tail_of(alone), push(2))
    asyncio.get_running_loop().call_soon(done.append, "another")
    await wait_until(lambda: len(done) == 2 * _SLICE + 2)
    assert done.index("another") == _SLICE
    assert done.index("alone") == _SLICE + 1


async def test_one_that_has_it_already_is_passed_by(rounds: Rounds, traffic: Traffic) -> None:
    """It read the log, which was ahead of the pushes."""
    ahead, behind = Reader(), Reader()
    ahead.subscriber.cursor = EventId(1, 3)
    take(rounds, tail_of(ahead, behind), push(2), push(3))
    await asyncio.sleep(0)
    assert (ahead.writes, behind.writes, traffic.deliveries) == ([], [b"2 3 "], 1)


async def test_one_without_a_place_in_the_tail_is_told_of(rounds: Rounds, lost: list[Subscriber]) -> None:
    reader = Reader()
    reader.subscriber.cursor = EventId(0, 1)
    take(rounds, tail_of(reader), push(2))
    await asyncio.sleep(0)
    assert (lost, reader.writes) == ([reader.subscriber], [])


@pytest.mark.parametrize("why", ["replays", "is blocked", "has left"])
async def test_one_that_takes_no_pushes_is_skipped(rounds: Rounds, lost: list[Subscriber], why: str) -> None:
    reader = Reader()
    if why == "is blocked":
        reader.subscriber.blocked_since = 1.0
    else:
        reader.subscriber.state = State.REPLAYING if why == "replays" else State.ENDED
    take(rounds, tail_of(reader), push(2))
    await asyncio.sleep(0)
    assert (reader.writes, lost, reader.subscriber.cursor) == ([], [], EventId(1, 1))


async def test_the_end_completes_the_response(rounds: Rounds) -> None:
    reader = Reader()
    take(rounds, tail_of(reader), push(2), push(3, terminal=True))
    await asyncio.sleep(0)
    assert (reader.writes, reader.complete, reader.subscriber.state) == ([b"2 3 "], True, State.ENDED)
