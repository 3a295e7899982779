"""worker/writer.py: group commit, and what happens while Redis does not take it. Redis is a fake that keeps what it is sent."""

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from shared.errors import AlreadyEnded, LogBehind, LogErased, LogRefused, Superseded
from shared.event_log import Lease, Ownership
from shared.events import Token
from shared.redis_client import scripts
from shared.settings import Settings
from tests.support.waiting import wait_until
from worker import writer as writer_module
from worker.leases import Leases
from worker.writer import LogHandle, Writer

Trip = list[tuple[str, int, list[str]]]


class FakeRedis:
    """Answers for each log with the next of `answers`, else `ok`; an exception is the whole script's. While `gate` is cleared,
    it says nothing yet."""

    def __init__(self) -> None:
        self.trips: list[Trip] = []
        self.answers: list[Any] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.loaded = 0

    def pipeline(self, *, transaction: bool) -> "FakePipe":
        assert not transaction
        return FakePipe(self)

    async def script_load(self, _source: str) -> None:
        self.loaded += 1


class FakePipe:
    def __init__(self, redis: FakeRedis) -> None:
        self._redis = redis
        self._scripts: list[Trip] = []

    async def __aenter__(self) -> "FakePipe":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def execute_command(self, *command: Any) -> None:
        """One append script: `(job, first seq, texts)` for each log in it."""
        n, args = command[2], list(command[3 + command[2] :])
        rows: Trip = []
        for record in command[3 : 3 + n : 2]:
            _token, _attempt, seq, size = args[:4]
            fields, args = args[4 : 4 + size], args[4 + size :]
            texts = [value.decode() for name, value in pairwise(fields) if name == b"t"]
            rows.append((record.rpartition(":")[2], seq, texts))
        self._scripts.append(rows)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        await self._redis.gate.wait()
        answers = [self._answer(rows) for rows in self._scripts]
        if any(isinstance(answer, RedisConnectionError) for answer in answers):
            raise next(answer for answer in answers if isinstance(answer, RedisConnectionError))
        self._redis.trips.append([row for rows in self._scripts for row in rows])
        return answers

    def _answer(self, rows: Trip) -> Any:
        planned = [self._redis.answers.pop(0) if self._redis.answers else [b"ok"] for _ in rows]
        return next((answer for answer in planned if isinstance(answer, Exception)), planned)


class FreshLeases:
    def __init__(self) -> None:
        self.fresh = asyncio.Event()
        self.fresh.set()

    async def wait_until_fresh(self) -> None:
        await self.fresh.wait()


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def leases() -> FreshLeases:
    return FreshLeases()


@pytest.fixture
async def writer(redis: FakeRedis, leases: FreshLeases) -> AsyncIterator[Writer]:
    writer = Writer(cast(Redis, redis), Settings(writer_buffer_events=16), cast(Leases, leases))
    running = asyncio.create_task(writer.run_forever())
    yield writer
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def handle(writer: Writer, job_id: str = "j") -> LogHandle:
    return writer.open(Ownership(Lease(job_id, "t"), 1, "first"))


async def test_a_token_leaves_at_once(writer: Writer, redis: FakeRedis) -> None:
    out = handle(writer)
    await out.append(Token("a"))
    await out.flush()
    assert redis.trips == [[("j", 1, ["a"])]]


async def test_what_came_during_a_round_trip_goes_out_in_the_next(writer: Writer, redis: FakeRedis) -> None:
    """Group commit: one round trip for all jobs."""
    first, second = handle(writer, "j1"), handle(writer, "j2")
    redis.gate.clear()
    await first.append(Token("a"))
    await asyncio.sleep(0)
    for word in "bcd":
        await first.append(Token(word))
    await second.append(Token("x"))
    redis.gate.set()
    await first.flush()
    await second.flush()
    assert redis.trips == [[("j1", 1, ["a"])], [("j1", 2, ["b", "c", "d"]), ("j2", 1, ["x"])]]


async def test_seqs_go_on_from_what_was_written(writer: Writer) -> None:
    out = handle(writer)
    assert out.next_seq == 1
    await out.append(Token("a"))
    assert out.next_seq == 2
    await out.flush()
    assert (out.next_seq, out.first_seq) == (2, 2)


async def test_no_script_takes_more_than_some_milliseconds(
    writer: Writer, redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "MOST_AT_ONCE", 4)
    out = handle(writer)
    for i in range(10):
        await out.append(Token(str(i)))
    await out.flush()
    assert [len(texts) for [(_, _, texts)] in redis.trips] == [4, 4, 2]


async def test_a_full_buffer_slows_its_provider_down(writer: Writer, redis: FakeRedis) -> None:
    out = handle(writer)
    redis.gate.clear()
    for i in range(16):
        await out.append(Token(str(i)))
    one_more = asyncio.create_task(out.append(Token("16")))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not one_more.done()
    redis.gate.set()
    await one_more
    await out.flush()
    assert sum(len(texts) for trip in redis.trips for _, _, texts in trip) == 17


@pytest.mark.parametrize("error", [RedisConnectionError("away"), OutOfMemoryError("full")])
async def test_what_redis_does_not_take_is_held_and_offered_again(writer: Writer, redis: FakeRedis, error: Exception) -> None:
    redis.answers = [error, error]
    out = handle(writer)
    await out.append(Token("a"))
    await out.flush()
    assert redis.trips[-1] == [("j", 1, ["a"])]


@pytest.mark.parametrize(
    ("answer", "error"),
    [([b"superseded"], Superseded), ([b"ended"], AlreadyEnded), ([b"gone"], LogErased), ([b"behind", b"1-0"], LogBehind)],
)
async def test_a_refusal_stops_its_attempt_and_no_other(
    writer: Writer, redis: FakeRedis, answer: list[bytes], error: type[LogRefused]
) -> None:
    refused, other = handle(writer, "refused"), handle(writer, "other")
    redis.answers = [answer]
    await refused.append(Token("a"))
    await other.append(Token("b"))
    with pytest.raises(error):
        await refused.flush()
    with pytest.raises(error):
        await refused.append(Token("c"))
    await other.append(Token("d"))
    await other.flush()
    assert not refused.waiting


async def test_a_refusal_wakes_a_provider_that_waits_for_room(writer: Writer, redis: FakeRedis) -> None:
    out = handle(writer)
    redis.gate.clear()
    redis.answers = [[b"superseded"]]
    for i in range(16):
        await out.append(Token(str(i)))
    one_more = asyncio.create_task(out.append(Token("16")))
    await asyncio.sleep(0)
    redis.gate.set()
    with pytest.raises(Superseded):
        await one_more


async def test_flushed_scripts_are_loaded_again(writer: Writer, redis: FakeRedis) -> None:
    redis.answers = [NoScriptError("no such script")]
    out = handle(writer)
    await out.append(Token("a"))
    await out.flush()
    assert redis.loaded == len(scripts._source)


async def test_a_worker_that_may_own_nothing_writes_nothing(writer: Writer, redis: FakeRedis, leases: FreshLeases) -> None:
    leases.fresh.clear()
    out = handle(writer)
    await out.append(Token("a"))
    for _ in range(5):
        await asyncio.sleep(0)
    assert redis.trips == []
    leases.fresh.set()
    await wait_until(lambda: len(redis.trips) == 1)


async def test_a_script_that_fails_is_a_bug_that_is_not_hidden(redis: FakeRedis, leases: FreshLeases) -> None:
    writer = Writer(cast(Redis, redis), Settings(), cast(Leases, leases))
    redis.answers = [ResponseError("script failed")]
    running = asyncio.create_task(writer.run_forever())
    await handle(writer).append(Token("a"))
    with pytest.raises(ResponseError):
        await running
