"""`reclaim.lua`: where a log stands once Redis forgot some of it, and a claim that is put back (docs/decisions/0028)."""

from typing import Any

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.event_log import ClaimRefused, EventLog
from shared.events import Usage
from shared.fold import AttemptEnd
from shared.ids import QUEUED, EventId
from shared.job import JobFailure
from shared.job_queue import JobQueue
from shared.log_commands import reclaim_command
from shared.ownership import Ownership
from tests.integration.conftest import NewAuthor
from tests.support.author import MODEL, Author, lease
from tests.support.forgetting import forget_since, remember

CLAIMED = ("status", "owner", "worker", "attempt", "reason", "losses", "handover", "fallback", "before", "solitude")
FAILED = AttemptEnd(Usage(1, 1), JobFailure("overloaded", "…", retryable=True))


async def reclaim(redis: Redis, owner: Ownership | None, *, held: bool = True) -> list[bytes]:
    assert owner is not None
    command = reclaim_command(owner, 1.0, 60.0, held=held)
    answer: list[bytes] = await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    return answer


async def claim_fields(redis: Redis, author: Author) -> dict[str, Any]:
    return dict(zip(CLAIMED, await redis.hmget(keys.job(author.job_id), list(CLAIMED)), strict=True))  # type: ignore[misc]


async def age_primary(redis: Redis) -> None:
    await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]


# --- a claim is put back -------------------------------------------------------------------------------------------------


async def _a_first_claim(author: Author, redis: Redis) -> None:
    pass


async def _a_takeover(author: Author, redis: Redis) -> None:
    await author.claim(worker="w1")
    await author.say("a")


async def _a_hand_over(author: Author, redis: Redis) -> None:
    await author.claim(worker="w1")
    await redis.hdel(keys.job(author.job_id), "owner")  # type: ignore[misc]
    await redis.hset(keys.job(author.job_id), "handover", "1")  # type: ignore[misc]


@pytest.mark.parametrize("before", [_a_first_claim, _a_takeover, _a_hand_over])
async def test_a_claim_that_was_forgotten_is_put_back_as_it_was(
    redis: Redis, event_log: EventLog, new_queued: NewAuthor, before: Any
) -> None:
    author = await new_queued()
    await before(author, redis)
    memory = await remember(redis)
    owner = await author.claim(worker="w2")
    entries, fields = await event_log.read(author.job_id), await claim_fields(redis, author)
    await author.say("b", "c")
    await forget_since(redis, memory)

    assert await reclaim(redis, owner) == [b"at", str(EventId(owner.attempt, 0)).encode()]
    assert await event_log.read(author.job_id) == entries
    assert await claim_fields(redis, author) == fields
    assert await redis.get(keys.arq_in_progress(author.job_id)) == owner.lease.token.encode()
    assert await reclaim(redis, owner) == [b"at", str(EventId(owner.attempt, 0)).encode()], "once is enough"


async def test_the_same_owners_next_attempt_too(redis: Redis, event_log: EventLog, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a")
    memory = await remember(redis)
    assert author.owner is not None
    claimed = await event_log.again(author.owner, author.last, "w1", MODEL.id, "retry", reset=True, before=FAILED)
    entries, fields = await event_log.read(author.job_id), await claim_fields(redis, author)
    await forget_since(redis, memory)
    assert await reclaim(redis, claimed) == [b"at", b"2-0"]
    assert await event_log.read(author.job_id) == entries
    assert await claim_fields(redis, author) == fields


async def test_but_only_after_what_it_follows(redis: Redis, event_log: EventLog, new_author: NewAuthor) -> None:
    author = await new_author()
    memory = await remember(redis)
    await author.say("a")
    assert author.owner is not None
    claimed = await event_log.again(author.owner, author.last, "w1", MODEL.id, "retry", reset=True, before=FAILED)
    await forget_since(redis, memory)
    assert await reclaim(redis, claimed) == [b"at", b"1-0"]
    assert len(await event_log.read(author.job_id)) == 2


# --- or not --------------------------------------------------------------------------------------------------------------


async def test_not_when_another_has_claimed_since(redis: Redis, event_log: EventLog, new_queued: NewAuthor) -> None:
    """P5. Its number skips what the forgotten claim may have used, the first attempt's too."""
    author = await new_queued()
    memory = await remember(redis)
    mine = await author.claim(worker="w1")
    await author.say("a")
    await forget_since(redis, memory)
    given = await lease(redis, author.job_id)
    assert isinstance(await event_log.claim(given, "w2", MODEL.id, QUEUED, reset=False), ClaimRefused)
    await age_primary(redis)
    theirs = await event_log.claim(given, "w2", MODEL.id, QUEUED, reset=False)
    assert isinstance(theirs, Ownership)
    assert theirs.attempt == 1001
    before = await event_log.read(author.job_id)
    assert await reclaim(redis, mine) == [b"superseded"]
    assert await event_log.read(author.job_id) == before


async def test_not_when_it_is_too_old_to_have_been_forgotten(redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    owner = author.owner
    await author.claim(worker="w2")
    assert await reclaim(redis, owner, held=False) == [b"superseded"]
    assert await reclaim(redis, owner) == [b"superseded"]


async def test_not_when_the_job_was_cancelled_since(redis: Redis, new_queued: NewAuthor, job_queue: JobQueue) -> None:
    author = await new_queued()
    memory = await remember(redis)
    owner = await author.claim()
    await forget_since(redis, memory)
    assert await job_queue.cancel(author.job_id) == "ended"
    assert await reclaim(redis, owner) == [b"ended"]


async def test_not_when_redis_does_not_know_the_job(redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    await forget_since(redis, {})
    assert await reclaim(redis, author.owner) == [b"gone"]


# --- where the log stands ------------------------------------------------------------------------------------------------


async def test_an_owner_is_told_what_the_log_holds(redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a")
    memory = await remember(redis)
    await author.say("b")
    await forget_since(redis, memory)
    assert await reclaim(redis, author.owner) == [b"at", b"1-1"]
    assert await reclaim(redis, author.owner, held=False) == [b"at", b"1-1"]


async def test_and_whether_its_end_is_there(redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.end()
    assert await reclaim(redis, author.owner) == [b"over"]
