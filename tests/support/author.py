"""Writes one job's log as a worker would, one step at a time: for tests that decide what a log holds and when."""

import secrets

from redis.asyncio import Redis

from shared import keys
from shared.event_log import ClaimRefused, EventLog
from shared.events import AnyEvent, Done, StartReason, Terminal, Timing, Token, Usage
from shared.ids import QUEUED, START, EventId
from shared.job import JobRequest, Solitude
from shared.job_queue import JobQueue
from shared.log_commands import Append, Offer, append_command, check_answer, end_command
from shared.models import Model
from shared.ownership import Lease, Opening, Ownership

MODEL = Model(id="openai/any", provider="openai", name="any", lane="api", kind="openai")
DONE = Done(finish_reason="stop", usage=Usage(3, 4), timing=Timing(total_s=1.5))


def request(**fields: object) -> JobRequest:
    """A valid request; whatever is given wins."""
    return JobRequest.model_validate({"model": MODEL.id, "prompt": "Say hello", **fields})


async def lease(redis: Redis, job_id: str, *, ms: int = 60_000) -> Lease:
    """A lease as `take` gives it, whoever held the job before."""
    given = Lease(job_id=job_id, token=f"token-{secrets.token_hex(4)}")
    await redis.set(keys.arq_in_progress(job_id), given.token, px=ms)
    return given


def ownership(job_id: str, attempt: int = 1, reason: StartReason = "first", token: str = "t") -> Ownership:
    """As a claim gives it."""
    return Ownership(Lease(job_id, token), attempt, reason, Opening(QUEUED, "w1", False, b"}", b"{}"))


async def append(redis: Redis, owner: Ownership, first_seq: int, *events: AnyEvent) -> None:
    """One append script. Raises LogRefused."""
    command = append_command([Append(owner, first_seq, [Offer(event) for event in events])])
    (answer,) = await redis.execute_command(*command)  # type: ignore[no-untyped-call]
    check_answer(answer, owner.job_id)


async def end(redis: Redis, owner: Ownership, seq: int, event: Terminal) -> None:
    """The end script. Raises LogRefused."""
    command = end_command(owner, seq, event, {}, retention_s=86_400)
    check_answer(await redis.execute_command(*command), owner.job_id)  # type: ignore[no-untyped-call]


class Author:
    """Owns a job's newest attempt. `last` is the id of what was written last."""

    def __init__(self, redis: Redis, log: EventLog, job_id: str) -> None:
        self.job_id = job_id
        self.last = EventId(0, 1)
        self.owner: Ownership | None = None
        self._redis = redis
        self._log = log

    @classmethod
    async def submit(cls, redis: Redis, log: EventLog, queue: JobQueue, **fields: object) -> "Author":
        """Submits a job, and claims nothing yet."""
        submitted = await queue.submit(request(**fields), MODEL)
        return cls(redis, log, submitted.job_id)

    async def claim(
        self, *, reset: bool = False, worker: str = "w1", solitude: Solitude | None = None, beside: str | None = None
    ) -> Ownership:
        """The next attempt is ours, with a new token; the owner before is superseded."""
        given = await lease(self._redis, self.job_id)
        entries = await self._log.last_ids([self.job_id])
        while True:
            answer = await self._log.claim(
                given, worker, MODEL.id, entries[0] or START, reset=reset, solitude=solitude, beside=beside
            )
            if not isinstance(answer, ClaimRefused):
                break
            assert answer.why == "wait", answer
            await self._redis.hset(keys.PRIMARY, "since", "0")  # type: ignore[misc]  # this Redis has been up for long
        self.owner, self.last = answer, EventId(answer.attempt, 0)
        return answer

    async def put(self, *events: AnyEvent) -> EventId:
        """Appends, in one script and one push."""
        assert self.owner is not None, "claim first"
        await append(self._redis, self.owner, self.last.seq + 1, *events)
        self.last = self.last.plus(len(events))
        return self.last

    async def say(self, *words: str) -> EventId:
        """Appends tokens, each word its own script and push."""
        for word in words:
            await self.put(Token(word))
        return self.last

    async def end(self, event: Terminal = DONE) -> EventId:
        assert self.owner is not None, "claim first"
        await end(self._redis, self.owner, self.last.seq + 1, event)
        self.last = self.last.next()
        return self.last

    async def lose_after(self, kept: EventId) -> None:
        """The log as a restart or failover may leave it: without its newest entries."""
        name = keys.log(self.job_id)
        entries = await self._redis.xrange(name, max=str(kept))
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.delete(name)
            for entry_id, fields in entries:
                pipe.xadd(name, fields, id=entry_id)
            pipe.expire(name, 3600)
            await pipe.execute()
        self.last = kept
