"""A response that goes on upstream, in the record and in the lane's list: no script forgets one (docs/decisions/0022)."""

import time

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.errors import Superseded
from shared.event_log import ClaimRefused, EventLog
from shared.events import Usage
from shared.fold import AttemptEnd
from shared.job import JobFailure
from shared.job_store import JobStore
from shared.log_commands import reclaim_command
from shared.ownership import KeptUpstream, Ownership
from tests.integration.conftest import NewAuthor
from tests.support.author import DONE, lease

KEPT = KeptUpstream("openai/any", "resp_0")
FAILED = AttemptEnd(Usage(), JobFailure("auth", "Check the key.", False))


async def left(redis: Redis) -> list[KeptUpstream]:
    """The lane's list of what nobody reads any more."""
    assert await redis.ttl(keys.abandoned("api")) in range(-2, 3601)
    return [KeptUpstream.parse(raw) for raw in await redis.lrange(keys.abandoned("api"), 0, -1)]  # type: ignore[misc]


async def test_a_claim_that_did_not_see_the_response_is_not_granted(
    event_log: EventLog, job_store: JobStore, new_author: NewAuthor, redis: Redis
) -> None:
    """The worker that everyone took for dead noted it after the record was read."""
    author = await new_author()
    assert author.owner is not None
    await event_log.note_upstream(author.owner, KEPT)
    await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]
    given = await lease(redis, author.job_id)
    unseen = await event_log.claim(given, "w2", "openai/any", author.last, reset=False)
    assert unseen == ClaimRefused("moved")
    seen = await event_log.claim(given, "w2", "openai/any", author.last, reset=False, upstream=KEPT, read_on=0)
    assert isinstance(seen, Ownership)
    assert ((await job_store.record(author.job_id)).upstream, await left(redis)) == (KEPT, [])


async def test_only_the_owner_notes_a_response(event_log: EventLog, job_store: JobStore, new_author: NewAuthor) -> None:
    author = await new_author()
    before = author.owner
    assert before is not None
    await author.claim(worker="w3")
    with pytest.raises(Superseded):
        await event_log.note_upstream(before, KEPT)


async def test_a_job_that_moves_to_another_lane_leaves_its_response_behind(
    event_log: EventLog, job_store: JobStore, new_author: NewAuthor, redis: Redis
) -> None:
    author = await new_author()
    assert author.owner is not None
    await event_log.note_upstream(author.owner, KEPT)
    await event_log.move(author.owner, "api", "local", "local/m", FAILED)
    assert ((await job_store.record(author.job_id)).upstream, await left(redis)) == (None, [KEPT])


async def test_a_job_that_is_ended_from_outside_leaves_its_response_behind(
    event_log: EventLog, job_store: JobStore, new_author: NewAuthor, redis: Redis
) -> None:
    author = await new_author()
    assert author.owner is not None
    await event_log.note_upstream(author.owner, KEPT)
    assert await event_log.close(author.job_id, DONE, "openai/any", "w9") == "ok"
    assert ((await job_store.record(author.job_id)).upstream, await left(redis)) == (None, [KEPT])


@pytest.mark.parametrize(("told", "kept"), [(str(KEPT), KEPT), ("", None), ("=", KeptUpstream("openai/any", "resp_old"))])
async def test_what_redis_forgot_of_a_response_is_put_right_with_the_claim(
    event_log: EventLog, job_store: JobStore, new_author: NewAuthor, redis: Redis, told: str, kept: KeptUpstream | None
) -> None:
    author = await new_author()
    assert author.owner is not None
    await event_log.note_upstream(author.owner, KeptUpstream("openai/any", "resp_old"))
    command = reclaim_command(author.owner, time.time(), 5.0, held=True, upstream=told)
    assert (await redis.execute_command(*command))[0] == b"at"  # type: ignore[no-untyped-call]
    assert (await job_store.record(author.job_id)).upstream == kept
