"""worker/writer.py: group commit, and what happens while Redis does not take it. Redis is a fake that keeps what it is sent."""

import asyncio
import time
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any, cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, OutOfMemoryError, ResponseError

from shared.errors import AlreadyEnded, LogBehind, LogErased, LogRefused, Superseded
from shared.events import Token
from shared.redis_client import scripts
from shared.settings import Settings
from tests.support.author import DONE, ownership
from tests.support.waiting import wait_until
from worker import log_handle
from worker import writer as writer_module
from worker.leases import Leases
from worker.log_handle import LogHandle
from worker.writer import Writer

Trip = list[tuple[str, int, list[str]]]
_NAMES = {scripts.command(name, [], [])[1]: name for name in ("append", "end", "reclaim")}


class FakeRedis:
    """Answers for each log with the next of `answers`, else `ok`; an exception is the whole script's. While `gate` is cleared,
    it says nothing yet."""

    def __init__(self) -> None:
        self.trips: list[Trip] = []
        self.answers: list[Any] = []
        self.compared: list[str] = []
        self.stands: dict[int, Any] = {}
        """What `reclaim` answers, by attempt; else `superseded`."""
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
        self._scripts: list[Trip | tuple[str, int]] = []

    async def __aenter__(self) -> "FakePipe":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def execute_command(self, *command: Any) -> None:
        """An append: `(job, first seq, texts)` for each log in it; an end: the same, its text being `end`; a reclaim."""
        n, args = command[2], list(command[3 + command[2] :])
        job_id = command[3].rpartition(":")[2]
        if _NAMES[command[1]] == "reclaim":
            self._scripts.append((job_id, args[2]))
            return
        if _NAMES[command[1]] == "end":
            self._scripts.append([(job_id, args[2], ["end"])])
            return
        rows: Trip = []
        for record in command[3 : 3 + n : 2]:
            _token, _attempt, _before, seq, size = args[:5]
            fields, args = args[5 : 5 + size], args[5 + size :]
            texts = [value.decode() for name, value in pairwise(fields) if name == b"t"]
            rows.append((record.rpartition(":")[2], seq, texts))
        self._scripts.append(rows)

    async def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        await self._redis.gate.wait()
        answers = [self._answer(script) for script in self._scripts]
        if any(isinstance(answer, RedisConnectionError) for answer in answers):
            raise next(answer for answer in answers if isinstance(answer, RedisConnectionError))
        rows = [row for script in self._scripts if isinstance(script, list) for row in script]
        if rows:
            self._redis.trips.append(rows)
        return answers

    def _answer(self, rows: Trip | tuple[str, int]) -> Any:
        if isinstance(rows, tuple):
            self._redis.compared.append(rows[0])
            return self._redis.stands.get(rows[1], [b"superseded"])
        if rows[0][2] == ["end"]:
            return self._redis.answers.pop(0) if self._redis.answers else [b"ok"]
        planned = [self._redis.answers.pop(0) if self._redis.answers else [b"ok"] for _ in rows]
        return next((answer for answer in planned if isinstance(answer, Exception)), planned)


class FreshLeases:
    def __init__(self) -> None:
        self.fresh = asyncio.Event()
        self.fresh.set()

    async def wait_until_fresh(self) -> None:
        await self.fresh.wait()

    @property
    def renewed_at(self) -> float:
        """Redis was heard of just now."""
        return time.monotonic()


@pytest.fixture
def redis() -> FakeRedis:
    return FakeRedis()


@pytest.fixture
def leases() -> FreshLeases:
    return FreshLeases()


@pytest.fixture
async def writer(redis: FakeRedis, leases: FreshLeases, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Writer]:
    """It holds what was acknowledged for a moment."""
    monkeypatch.setattr(writer_module, "_TICK_S", 0.01)
    writer = Writer(cast(Redis, redis), Settings(writer_buffer_events=16, hold_s=0.05), cast(Leases, leases))
    running = asyncio.create_task(writer.run_forever())
    yield writer
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def handle(writer: Writer, job_id: str = "j") -> LogHandle:
    return writer.open(ownership(job_id))


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


async def test_after_a_crowd_the_next_round_trip_waits_for_more(
    writer: Writer, redis: FakeRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker with hundreds of streams makes one for every few of their tokens."""
    monkeypatch.setattr(writer_module, "_GATHER_S", 0.2)
    outs = [handle(writer, f"j{i}") for i in range(8)]
    for out in outs:
        await out.append(Token("a"))
    await outs[0].flush()
    for out in outs[:3]:
        await out.append(Token("b"))
        for _ in range(5):  # a round trip would be over by then
            await asyncio.sleep(0)
    for out in outs[:3]:
        await out.flush()
    assert [len(trip) for trip in redis.trips] == [8, 3]


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
    monkeypatch.setattr(log_handle, "MOST_AT_ONCE", 4)
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
    redis.stands = {1: [b"at", b"0-1"] if error is LogBehind else answer}  # what it lacks is not held any more
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


# --- healing -------------------------------------------------------------------------------------------------------------


async def _written(writer: Writer, *words: str, job_id: str = "j") -> LogHandle:
    """A log that Redis acknowledged all of."""
    out = handle(writer, job_id)
    for word in words:
        await out.append(Token(word))
    await out.flush()
    return out


async def test_what_a_restart_forgot_is_written_again_before_anything_else(writer: Writer, redis: FakeRedis) -> None:
    """Under the same ids, and by itself: readers that had it see it whole, and skip it."""
    out = await _written(writer, "a", "b", "c")
    redis.stands = {1: [b"at", b"1-1"]}
    writer.doubt_all()
    await out.append(Token("d"))
    await out.flush()
    assert redis.trips[-2:] == [[("j", 2, ["b", "c"])], [("j", 4, ["d"])]]
    assert out.next_seq == 5


async def test_a_log_that_says_it_is_behind_is_compared(writer: Writer, redis: FakeRedis) -> None:
    """No reconnect was seen: the answer alone tells."""
    out = await _written(writer, "a", "b")
    redis.answers, redis.stands = [[b"behind", b"1-0"]], {1: [b"at", b"1-0"]}
    await out.append(Token("c"))
    await out.flush()
    assert redis.compared == ["j"]
    assert redis.trips[-2:] == [[("j", 1, ["a", "b"])], [("j", 3, ["c"])]]


async def test_a_log_that_lost_nothing_is_left_alone(writer: Writer, redis: FakeRedis) -> None:
    out = await _written(writer, "a", "b")
    trips = len(redis.trips)
    redis.stands = {1: [b"at", b"1-2"]}
    writer.doubt_all()
    await wait_until(lambda: redis.compared == ["j"])
    await out.append(Token("c"))
    await out.flush()
    assert redis.trips[trips:] == [[("j", 3, ["c"])]]


async def test_an_end_that_was_forgotten_is_written_again(writer: Writer, redis: FakeRedis) -> None:
    """Also after its job was done with here."""
    out = await _written(writer, "a", "b")
    await out.end(DONE, {})
    writer.close(out)
    redis.stands = {1: [b"at", b"1-1"]}
    writer.doubt_all()
    await wait_until(lambda: redis.trips[-2:] == [[("j", 2, ["b"])], [("j", 3, ["end"])]])


async def test_an_end_is_held_for_a_while_and_no_longer(writer: Writer, redis: FakeRedis) -> None:
    out = await _written(writer, "a")
    await out.end(DONE, {})
    writer.close(out)
    await wait_until(lambda: not writer._logs)
    writer.doubt_all()
    await handle(writer, "other").append(Token("x"))
    await wait_until(lambda: redis.trips[-1] == [("other", 1, ["x"])])
    assert redis.compared == []


async def test_what_is_handed_over_is_held_no_longer(writer: Writer, redis: FakeRedis) -> None:
    """Whoever has the job now decides what its log says."""
    writer.close(await _written(writer, "a"))
    writer.doubt_all()
    assert not writer._doubted


async def test_of_two_attempts_the_first_is_whole_before_the_second_is_compared(writer: Writer, redis: FakeRedis) -> None:
    """A retry is claimed by the owner itself; its claim can be put back only after what it follows."""
    first = await _written(writer, "a", "b")
    second = writer.open(ownership("j", 2, "retry"), after=first)
    redis.stands = {1: [b"at", b"1-1"], 2: [b"at", b"2-0"]}
    writer.doubt_all()
    await second.append(Token("c"))
    await second.flush()
    assert redis.compared == ["j", "j"]
    assert redis.trips[-2:] == [[("j", 2, ["b"])], [("j", 1, ["c"])]]


async def test_a_lost_lease_is_doubted_once(writer: Writer, redis: FakeRedis) -> None:
    """The claim behind it may be what Redis forgot; a second such answer is the truth."""
    out = await _written(writer, "a")
    assert writer.contest("j")
    await wait_until(lambda: out.refused is not None)
    assert isinstance(out.refused, Superseded)
    assert not writer.contest("j")
    assert not writer.contest("another")


async def test_redis_away_while_logs_are_compared(writer: Writer, redis: FakeRedis) -> None:
    out = await _written(writer, "a")
    redis.stands = {1: RedisConnectionError("away")}
    writer.doubt_all()
    await wait_until(lambda: len(redis.compared) >= 2)
    redis.stands = {1: [b"at", b"1-0"]}
    await out.flush()
    await wait_until(lambda: redis.trips[-1] == [("j", 1, ["a"])])
