"""The log's scripts on a real Redis: who may write, what a repeated call does, what readers are told (protocol 3 and P5)."""

import pytest
from redis.asyncio import Redis

from shared import keys
from shared.errors import AlreadyEnded, LogBehind, LogErased, LogRefused, Superseded
from shared.event_log import ClaimRefused, EventLog, Place
from shared.events import Cancelled, Error, Started, Terminal, Timing, Token, Usage
from shared.ids import QUEUED, START, EventId
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.ownership import Ownership
from shared.settings import Settings
from tests.integration.conftest import NewAuthor
from tests.support.author import DONE, MODEL, Author, append, end, lease

FAILED = Error("timeout", "late", True, True, Usage(), Timing())
CANCELLED = Cancelled("user", True, Usage(), Timing())


async def claim_anew(redis: Redis, log: EventLog, author: Author, **changed: object) -> Ownership | ClaimRefused:
    """A claim by another worker that holds the lease; `token` may be given to repeat a call."""
    given = await lease(redis, author.job_id)
    seen = changed.get("seen", author.last)
    assert isinstance(seen, EventId)
    return await log.claim(given, "w2", MODEL.id, seen, reset=bool(changed.get("reset")))


async def age_primary(redis: Redis) -> None:
    """This Redis has been the primary for longer than any lease."""
    await redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]  # redis-py types both


# --- claim ---------------------------------------------------------------------------------------------------------------


async def test_the_first_claim_opens_attempt_1(new_queued: NewAuthor, event_log: EventLog, job_store: JobStore) -> None:
    """Protocol 3: attempt N opens with `N-0`, `started`; `after` is the log's last id at the claim."""
    author = await new_queued()
    owner = await author.claim(reset=True)
    assert (owner.attempt, owner.reason) == (1, "first")
    [queued, started] = await event_log.read(author.job_id)
    assert queued.id == QUEUED
    assert started.id == EventId(1, 0)
    assert started.event == Started(1, MODEL.id, "w1", "first", False, "0-1")  # nothing to reset at the first
    record = await job_store.record(author.job_id)
    assert (record.status, record.worker, record.owned, record.losses) == ("running", "w1", True, 0)
    assert record.started_at is not None


async def test_a_takeover_opens_the_next_attempt_and_counts_a_loss(
    redis: Redis, new_author: NewAuthor, event_log: EventLog, job_store: JobStore
) -> None:
    author = await new_author()
    await author.say("a", "b")
    started_at = (await job_store.record(author.job_id)).started_at
    await age_primary(redis)
    owner = await claim_anew(redis, event_log, author, reset=True)
    assert isinstance(owner, Ownership)
    assert (owner.attempt, owner.reason) == (2, "takeover")
    started = (await event_log.read(author.job_id, author.last))[0]
    assert started.event == Started(2, MODEL.id, "w2", "takeover", True, "1-2")
    record = await job_store.record(author.job_id)
    assert (record.losses, record.worker, record.started_at) == (1, "w2", started_at)


async def test_a_hand_over_counts_no_loss(
    redis: Redis, new_author: NewAuthor, event_log: EventLog, job_store: JobStore
) -> None:
    author = await new_author()
    await redis.hset(keys.job(author.job_id), "handover", "1")  # type: ignore[misc]
    await redis.hdel(keys.job(author.job_id), "owner")  # type: ignore[misc]
    owner = await claim_anew(redis, event_log, author)
    assert isinstance(owner, Ownership)
    assert (owner.attempt, owner.reason) == (2, "handover")
    record = await job_store.record(author.job_id)
    assert (record.losses, record.handover) == (0, False)


async def test_attempt_numbers_only_rise(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    """1 + max(counter, attempt of the log's last id), whichever of the two a failover set back."""
    author = await new_author()
    assert [(await author.claim()).attempt for _ in range(3)] == [2, 3, 4]
    await redis.hset(keys.job(author.job_id), "attempt", "1")  # type: ignore[misc]  # the record fell back, the log did not
    assert (await author.claim()).attempt == 5
    await author.lose_after(EventId(2, 0))  # the log fell back, the record did not
    assert (await author.claim()).attempt == 6


async def test_the_number_jumps_after_a_failover(redis: Redis, new_author: NewAuthor) -> None:
    """A claim that the failover lost may have used the next numbers, and readers may have seen them."""
    author = await new_author()
    await redis.hset(keys.job(author.job_id), "replid", "another primary's")  # type: ignore[misc]
    assert (await author.claim()).attempt == 1002
    assert (await author.claim()).attempt == 1003


async def test_an_end_from_outside_jumps_too(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    await author.say("a")
    await redis.hset(keys.job(author.job_id), "replid", "another primary's")  # type: ignore[misc]
    assert await event_log.close(author.job_id, FAILED, MODEL.id, "w9") == "ok"
    assert [e.id for e in await event_log.read(author.job_id, author.last)] == [EventId(1002, 0), EventId(1002, 1)]


async def test_a_claim_whose_reply_was_lost_may_be_repeated(new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    assert author.owner is not None
    again = await event_log.claim(author.owner.lease, "w1", MODEL.id, QUEUED, reset=False)
    assert again == author.owner
    assert len(await event_log.read(author.job_id)) == 2


async def test_moved_the_log_went_on_since_it_was_read(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    await author.say("a")
    assert await claim_anew(redis, event_log, author, seen=EventId(1, 0)) == ClaimRefused("moved")


async def test_wait_while_the_owner_may_have_lived_through_an_outage(
    redis: Redis, new_author: NewAuthor, event_log: EventLog, settings: Settings
) -> None:
    """Architecture 4: no takeover until the primary has been up under the same id for one lease."""
    author = await new_author()
    await age_primary(redis)
    await redis.hset(keys.PRIMARY, "replid", "the one before")  # type: ignore[misc]  # a restart or failover since
    answer = await claim_anew(redis, event_log, author)
    assert isinstance(answer, ClaimRefused)
    assert answer.why == "wait"
    assert 0 < answer.wait_ms <= settings.lease_s * 1000
    await age_primary(redis)
    assert isinstance(await claim_anew(redis, event_log, author), Ownership)


async def test_a_job_without_an_owner_need_not_wait(redis: Redis, new_queued: NewAuthor, event_log: EventLog) -> None:
    author = await new_queued()
    await redis.hset(keys.PRIMARY, "replid", "the one before")  # type: ignore[misc]
    assert isinstance(await claim_anew(redis, event_log, author), Ownership)


async def test_lost_the_lease_is_anothers(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    mine = await lease(redis, author.job_id)
    await lease(redis, author.job_id)
    assert await event_log.claim(mine, "w2", MODEL.id, author.last, reset=False) == ClaimRefused("lost")
    await redis.delete(keys.arq_in_progress(author.job_id))  # lapsed
    assert await event_log.claim(mine, "w2", MODEL.id, author.last, reset=False) == ClaimRefused("lost")


@pytest.mark.parametrize("terminal", [DONE, FAILED, CANCELLED])
async def test_ended_nothing_claims_an_ended_job(
    redis: Redis, new_author: NewAuthor, event_log: EventLog, terminal: Terminal
) -> None:
    """Protocol 3."""
    author = await new_author()
    await author.end(terminal)
    assert await claim_anew(redis, event_log, author) == ClaimRefused("ended")


async def test_gone_the_job_was_erased(redis: Redis, new_author: NewAuthor, event_log: EventLog, job_queue: JobQueue) -> None:
    author = await new_author()
    await job_queue.erase(author.job_id)
    assert await claim_anew(redis, event_log, author) == ClaimRefused("gone")


async def test_cancelled_asked_for_before_the_claim(
    redis: Redis, new_author: NewAuthor, event_log: EventLog, job_queue: JobQueue
) -> None:
    """Protocol 2: if its worker is dead, the next claim leads to `cancelled` without calling a provider."""
    author = await new_author()
    await job_queue.cancel(author.job_id)
    assert await claim_anew(redis, event_log, author) == ClaimRefused("cancelled")


# --- append --------------------------------------------------------------------------------------------------------------


async def test_an_append_adds_the_entries_in_order(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    await author.put(Token("a", ids=(7, 8)), Token("b"))
    entries = await event_log.read(author.job_id, EventId(1, 0))
    assert [(entry.id, entry.event) for entry in entries] == [
        (EventId(1, 1), Token("a", ids=(7, 8))),
        (EventId(1, 2), Token("b")),
    ]


@pytest.mark.parametrize("first", [1, 2, 3])
async def test_an_append_may_be_offered_again(redis: Redis, new_author: NewAuthor, event_log: EventLog, first: int) -> None:
    """After a lost reply; also in a batch that reaches beyond what was written: nothing twice, nothing left out."""
    author = await new_author()
    await author.put(Token("1"), Token("2"))
    assert author.owner is not None
    await append(redis, author.owner, first, *[Token(str(i)) for i in range(first, 5)])
    texts = [entry.event.text for entry in await event_log.read(author.job_id, EventId(1, 0)) if isinstance(entry.event, Token)]
    assert texts == ["1", "2", "3", "4"]


async def test_a_superseded_owner_is_refused(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    """P5: also for an id that the log holds already, and also for its end."""
    author = await new_author()
    zombie = author.owner
    assert zombie is not None
    await author.say("a")
    await author.claim(worker="w2")
    await author.say("b")
    before = await event_log.read(author.job_id)
    for write in (
        append(redis, zombie, 2, Token("zombie")),
        append(redis, zombie, 1, Token("a")),
        end(redis, zombie, 2, DONE),
    ):
        with pytest.raises(Superseded):
            await write
    assert await event_log.read(author.job_id) == before


async def test_nobody_owns_a_job_that_was_handed_over(redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    await redis.hdel(keys.job(author.job_id), "owner")  # type: ignore[misc]
    with pytest.raises(Superseded):
        await author.say("a")


async def test_behind_the_log_lost_a_tail(redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    assert author.owner is not None
    await author.say("a", "b", "c")
    await author.lose_after(EventId(1, 1))
    with pytest.raises(LogBehind):
        await append(redis, author.owner, 4, Token("d"))
    with pytest.raises(LogBehind):
        await end(redis, author.owner, 4, DONE)
    await redis.delete(keys.log(author.job_id))
    with pytest.raises(LogBehind):
        await append(redis, author.owner, 4, Token("d"))
    assert not await redis.exists(keys.log(author.job_id)), "no append makes a new log"


async def test_an_erased_job_takes_nothing(redis: Redis, new_author: NewAuthor, job_queue: JobQueue) -> None:
    author = await new_author()
    assert author.owner is not None
    await job_queue.erase(author.job_id)
    with pytest.raises(LogErased):
        await author.say("a")
    with pytest.raises(LogErased):
        await end(redis, author.owner, 1, DONE)
    assert not await redis.exists(keys.log(author.job_id), keys.job(author.job_id))


# --- end -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("terminal", "status"), [(DONE, "done"), (FAILED, "failed"), (CANCELLED, "cancelled")])
async def test_the_end_is_the_last_event_and_the_final_status(
    new_author: NewAuthor, event_log: EventLog, job_store: JobStore, terminal: Terminal, status: str
) -> None:
    """Protocol 3: both in one script."""
    author = await new_author()
    await author.say("a")
    last = await author.end(terminal)
    assert (await event_log.read(author.job_id))[-1].event == terminal
    record = await job_store.record(author.job_id)
    assert (record.status, record.owned) == (status, False)
    assert record.finished_at is not None
    assert await event_log.place(author.job_id, last) == Place(held=True, last=last, ended=True)


async def test_an_end_whose_reply_was_lost_may_be_repeated(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    last = await author.end()
    assert author.owner is not None
    await end(redis, author.owner, last.seq, DONE)
    assert len(await event_log.read(author.job_id)) == 3


async def test_nothing_follows_the_end(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    assert author.owner is not None
    await author.end()
    before = await event_log.read(author.job_id)
    with pytest.raises(AlreadyEnded):
        await append(redis, author.owner, 2, Token("late"))
    assert await event_log.close(author.job_id, FAILED, MODEL.id, "w9") == "ended"
    assert await event_log.read(author.job_id) == before


async def test_an_end_must_stand_right_after_the_last_entry(redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    assert author.owner is not None
    await author.say("a")
    for seq in (1, 3):
        with pytest.raises(LogBehind):
            await end(redis, author.owner, seq, DONE)


async def test_from_outside_a_started_job_ends_in_an_attempt_of_its_own(new_author: NewAuthor, event_log: EventLog) -> None:
    """Protocol 3: "whoever ends a started job from outside" writes `N-0` and `N-1`, and the owner is out."""
    author = await new_author()
    await author.say("a")
    assert await event_log.close(author.job_id, FAILED, MODEL.id, "w9", seen=author.last) == "ok"
    [started, ended] = await event_log.read(author.job_id, author.last)
    assert (started.id, started.event) == (EventId(2, 0), Started(2, MODEL.id, "w9", "takeover", False, "1-1"))
    assert (ended.id, ended.event) == (EventId(2, 1), FAILED)
    with pytest.raises(LogRefused):
        await author.say("b")


async def test_from_outside_a_queued_job_ends_at_0_2(new_queued: NewAuthor, event_log: EventLog) -> None:
    author = await new_queued()
    assert await event_log.close(author.job_id, FAILED, MODEL.id, "w9") == "ok"
    assert [entry.id for entry in await event_log.read(author.job_id)] == [EventId(0, 1), EventId(0, 2)]


async def test_from_outside_only_what_was_looked_at_is_ended(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    mine = await lease(redis, author.job_id)
    await author.say("a")
    args = (author.job_id, FAILED, MODEL.id, "w9")
    assert await event_log.close(*args, seen=EventId(1, 0)) == "moved"
    await lease(redis, author.job_id)
    assert await event_log.close(*args, lease=mine) == "lost"
    assert await event_log.close("job_" + "a" * 26, FAILED, MODEL.id, "w9") == "gone"


# --- how long it is kept -------------------------------------------------------------------------------------------------


async def test_every_key_has_a_ttl_from_birth_and_is_cut_to_the_retention_at_the_end(
    redis: Redis, new_queued: NewAuthor, settings: Settings
) -> None:
    author = await new_queued()
    own = [keys.job(author.job_id), keys.log(author.job_id), keys.arq_job(author.job_id)]
    assert [await redis.ttl(name) for name in own] == pytest.approx([settings.open_ttl_s] * 3, abs=5)
    await redis.expire(own[0], 100)
    await redis.expire(own[1], 100)
    await author.claim()
    assert [await redis.ttl(name) for name in own] == pytest.approx([settings.open_ttl_s] * 3, abs=5)
    await author.end()
    assert [await redis.ttl(name) for name in own[:2]] == pytest.approx([settings.retention_s] * 2, abs=5)
    assert await redis.exists(own[2], keys.arq_in_progress(author.job_id)) == 0
    assert await redis.zscore(keys.queue("api"), author.job_id) is None
    assert await redis.zscore(keys.open_jobs("api"), author.job_id) is None


# --- reading -------------------------------------------------------------------------------------------------------------


async def test_reading_goes_page_by_page(new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    await author.put(*[Token("x")] * 5)
    first = await event_log.read(author.job_id, EventId(1, 1), count=2)
    assert [entry.id.seq for entry in first] == [2, 3]
    assert await event_log.read(author.job_id, EventId(1, 5)) == []
    assert await event_log.read("job_" + "a" * 26) == []


async def test_a_fold_reads_the_whole_log(new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    for _ in range(3):
        await author.put(*[Token("x")] * 500)
    state = await event_log.fold(author.job_id)
    assert (len(state.text), state.last_id, state.terminal) == (1500, EventId(1, 1500), None)
    assert (await event_log.fold("job_" + "a" * 26)).last_id == START


async def test_where_a_cursor_stands(new_author: NewAuthor, event_log: EventLog) -> None:
    author = await new_author()
    await author.say("a")
    last = EventId(1, 1)
    assert await event_log.place(author.job_id, START) == Place(held=False, last=last, ended=False)
    assert await event_log.place(author.job_id, EventId(1, 0)) == Place(held=True, last=last, ended=False)
    assert await event_log.place(author.job_id, EventId(1, 2)) == Place(held=False, last=last, ended=False)
    assert await event_log.place("job_" + "a" * 26, START) is None
    assert await event_log.place("$", START) is None


async def test_the_last_ids_of_many_logs(new_author: NewAuthor, event_log: EventLog) -> None:
    first, second = await new_author(), await new_author()
    await second.say("a")
    assert await event_log.last_ids([second.job_id, "job_" + "a" * 26, first.job_id]) == [EventId(1, 1), None, EventId(1, 0)]
    assert await event_log.last_ids([]) == []


async def test_scripts_come_back_after_a_flush(redis: Redis, new_author: NewAuthor, event_log: EventLog) -> None:
    """SCRIPT FLUSH under a living connection: the next call loads them again."""
    author = await new_author()
    await redis.script_flush()
    assert await event_log.close(author.job_id, FAILED, MODEL.id, "w9") == "ok"
    assert await redis.hget(keys.job(author.job_id), "status") == b"failed"  # type: ignore[misc]  # redis-py types both
