"""One append script, many logs: what one of them refuses is no other's business."""

from redis.asyncio import Redis

from shared import keys
from shared.event_log import EventLog
from shared.events import Token
from shared.ids import EventId
from shared.job_queue import JobQueue
from shared.log_commands import Append, Offer, append_command
from tests.support.author import Author

CLAIM = EventId(1, 0)


async def test_each_log_gets_its_own_entries_and_its_own_answer(redis: Redis, event_log: EventLog, job_queue: JobQueue) -> None:
    a, b, c = [await _author(redis, event_log, job_queue) for _ in range(3)]
    await redis.hset(keys.job(b.job_id), "owner", "another")  # type: ignore[misc]  # redis-py types both

    appends = [_append(a, 1, "one", "two"), _append(b, 1, "never"), _append(c, 1, "three")]
    answers = await redis.execute_command(*append_command(appends))  # type: ignore[no-untyped-call]

    assert answers == [[b"ok"], [b"superseded"], [b"ok"]]
    assert [str(entry.id) for entry in await event_log.read(a.job_id, CLAIM)] == ["1-1", "1-2"]
    assert await event_log.read(b.job_id, CLAIM) == []
    assert [entry.event for entry in await event_log.read(c.job_id, CLAIM)] == [Token("three")]


async def test_offering_again_adds_only_what_is_missing(redis: Redis, event_log: EventLog, job_queue: JobQueue) -> None:
    a, b = [await _author(redis, event_log, job_queue) for _ in range(2)]
    await redis.execute_command(*append_command([_append(a, 1, "one")]))  # type: ignore[no-untyped-call]

    appends = [_append(a, 1, "one", "two"), _append(b, 2, "a hole before it")]
    answers = await redis.execute_command(*append_command(appends))  # type: ignore[no-untyped-call]

    assert answers == [[b"ok"], [b"behind", b"1-0"]]
    assert [entry.event for entry in await event_log.read(a.job_id, CLAIM)] == [Token("one"), Token("two")]


async def _author(redis: Redis, event_log: EventLog, job_queue: JobQueue) -> Author:
    author = await Author.submit(redis, event_log, job_queue)
    await author.claim()
    return author


def _append(author: Author, first_seq: int, *words: str) -> Append:
    assert author.owner is not None
    return Append(author.owner, first_seq, [Offer(Token(word)) for word in words])
