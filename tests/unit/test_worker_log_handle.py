"""worker/log_handle.py: what of an attempt waits for Redis, what is held, and when it is let go. No Redis."""

import asyncio

import pytest

from shared.errors import AlreadyEnded, GenerationFailed, LogBehind, LogErased, LogRefused, Superseded
from shared.events import Token, ToolCall
from shared.settings import Settings
from tests.support.author import DONE, ownership
from worker.log_handle import LogHandle


def handle(**settings: object) -> LogHandle:
    return LogHandle(ownership("j"), Settings(hold_s=3, **settings), lambda _: None, lambda _: None)  # type: ignore[arg-type]


async def written(*words: str, **settings: object) -> LogHandle:
    out = handle(**settings)
    for word in words:
        await out.append(Token(word))
    out.took(len(words))
    return out


def waits(out: LogHandle) -> list[str]:
    return [offer.event.text for offer in out.offered() if isinstance(offer.event, Token)]


async def test_what_is_acknowledged_is_held_until_redis_lived_long_enough_after_it() -> None:
    out = await written("a")
    assert not out.let_go(10.0, alive_at=10.0)  # noted: Redis had it by then
    await out.append(Token("b"))
    out.took(1)
    assert not out.let_go(12.0, alive_at=12.0)
    out.let_go(13.0, alive_at=12.9)
    assert out.opening_held
    out.let_go(13.5, alive_at=13.0)
    assert not out.opening_held, "a claim is let go with what was written after it"
    out.compare([b"at", b"1-1"])
    assert waits(out) == ["b"], "a is let go, b is not"


async def test_while_redis_is_away_nothing_is_let_go() -> None:
    out = await written("a")
    out.let_go(10.0, alive_at=10.0)
    out.let_go(100.0, alive_at=10.1)
    out.compare([b"at", b"1-0"])
    assert waits(out) == ["a"]


async def test_an_end_is_held_as_long() -> None:
    out = await written("a")
    out.end_offered = None
    out.took_end()
    assert not out.let_go(10.0, alive_at=10.0)
    assert not out.let_go(12.0, alive_at=12.0)
    assert out.let_go(13.0, alive_at=13.0)


async def test_the_clock_begins_anew_with_a_comparison() -> None:
    """What another primary has, it has had for no longer than that."""
    out = await written("a")
    out.let_go(10.0, alive_at=10.0)
    out.compare([b"at", b"1-1"])
    out.let_go(13.0, alive_at=13.0)
    assert out.opening_held


async def test_what_was_lost_waits_again_and_goes_by_itself() -> None:
    out = await written("a", "b", "c")
    await out.append(Token("d"))
    out.compare([b"at", b"1-1"])
    assert (out.first_seq, waits(out)) == (2, ["b", "c"])
    out.took(2)
    assert (out.first_seq, waits(out)) == (4, ["d"])


async def test_a_reply_that_was_lost_is_no_loss() -> None:
    """The log may hold more than was acknowledged."""
    out = await written("a")
    await out.append(Token("b"))
    out.compare([b"at", b"1-2"])
    assert (out.first_seq, waits(out)) == (2, ["b"])


async def test_an_end_that_was_lost_is_due_again() -> None:
    out = await written("a", "b")
    ending = asyncio.create_task(out.end(DONE, {}))
    await asyncio.sleep(0)
    out.took_end()
    await ending
    out.compare([b"at", b"1-1"])
    assert (waits(out), out.end_is_due) == (["b"], False)
    out.took(1)
    assert out.end_is_due


async def test_an_end_that_is_there_is_not() -> None:
    out = await written("a")
    ending = asyncio.create_task(out.end(DONE, {}))
    await asyncio.sleep(0)
    out.took_end()
    await ending
    out.compare([b"over"])
    assert not out.end_is_due


async def test_the_owners_own_next_attempt_is_no_loss() -> None:
    out = await written("a", "b")
    out.compare([b"at", b"2-1"])
    assert not out.waiting


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        ([b"superseded"], Superseded),
        ([b"ended"], AlreadyEnded),
        ([b"gone"], LogErased),
        ([b"at", b"0-1"], LogBehind),
        ([b"at", b"1-0"], LogBehind),
    ],
)
async def test_what_cannot_be_written_again_stops_the_attempt(answer: list[bytes], error: type[LogRefused]) -> None:
    """1-1 is not held any more."""
    out = await written("a", "b")
    out.let_go(10.0, alive_at=10.0)
    await out.append(Token("c"))
    out.took(1)
    out.let_go(13.0, alive_at=13.0)
    out.compare(answer)
    with pytest.raises(error):
        await out.flush()


@pytest.mark.parametrize("big", [Token("x" * 1024), ToolCall(0, arguments="x" * 1024)])
async def test_text_counts_too(big: Token | ToolCall) -> None:
    out = handle(writer_buffer_bytes=1024)
    assert not out.full
    await out.append(big)
    assert out.full


async def test_no_room_for_too_long_ends_the_attempt() -> None:
    """architecture 7, "Redis, full": past the bound `error/internal`."""
    out = handle(writer_buffer_bytes=1024, writer_patience_s=0.01)
    await out.append(Token("x" * 1024))
    with pytest.raises(GenerationFailed) as raised:
        await out.append(Token("y"))
    assert raised.value.code == "internal"


async def test_room_is_made_by_letting_go() -> None:
    out = await written("x" * 1024, writer_buffer_bytes=1024)
    one_more = asyncio.create_task(out.append(Token("y")))
    await asyncio.sleep(0)
    assert not one_more.done()
    out.let_go(10.0, alive_at=10.0)
    out.let_go(13.0, alive_at=13.0)
    await one_more
    assert waits(out) == ["y"]
