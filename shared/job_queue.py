"""Submit, cancel, erase: what callers do to the queue. The only place outside `worker/` that knows arq.

arq keeps a job as a payload under `arq:job:{id}` and an entry in a sorted set. Its own `enqueue_job` is a WATCH dance that
can leak a connection and cannot take record and log along; here one script does all of it, or nothing.
"""

import hashlib
import math
import time
from typing import Final, NamedTuple, NoReturn

import msgspec
from arq.jobs import serialize_job
from redis.asyncio import Redis
from redis.exceptions import NoScriptError, OutOfMemoryError

from shared import keys
from shared.errors import IdempotencyConflict, JobNotFound, QueueFull, RateLimited, RedisUnavailable, TooManyJobs
from shared.events import FORMAT_VERSION, Cancelled, Queued, Timing, Usage, to_data
from shared.ids import JobId, is_job_id, new_job_id
from shared.job import JobRequest
from shared.log_commands import outside_start
from shared.models import Model
from shared.redis_client import Arg, ScriptName, scripts
from shared.redis_connections import WritesRefused
from shared.settings import Lane, Settings

FUNCTION: Final = "generate"
"""The name of the one arq function; its only argument is the job's id."""


_TAKEN: Final = (b"ok", b"exists")
"""The submit script's answers that are no refusal."""

_WHEN_ONE_HAS_ENDED_S: Final = 5
"""When a tenant with too many open jobs is to ask again. Nobody knows when one ends; a short answer takes some seconds."""


class Submitted(NamedTuple):
    """`replayed`: the Idempotency-Key came before with the same body, and this is that call's job."""

    job_id: str
    replayed: bool
    created_at: float


def payload(job_id: str, created_ms: int) -> bytes:
    """arq's job: JSON, never pickle, and the id alone, so that no prompt sits in the queue."""
    return serialize_job(FUNCTION, (job_id,), {}, None, created_ms, serializer=msgspec.json.encode)  # type: ignore[no-any-return]


def _idempotency(tenant: str, key: str) -> str:
    """Where the key is kept: a tenant's own one, which is nobody else's."""
    whole = f"{tenant}\0{key}" if tenant else key
    return keys.idempotency(hashlib.sha256(whole.encode()).hexdigest())


class JobQueue:
    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings

    async def submit(
        self, request: JobRequest, model: Model, *, tenant: str = "", idempotency_key: str | None = None, request_id: str = ""
    ) -> Submitted:
        """Stores the job, opens its log with `queued`, queues it and wakes a worker, in one step. `request_id` is what the
        call is known by, in the logs of whoever runs the job and at its provider.

        Raises:
            IdempotencyConflict: the tenant sent the key before, with another body.
            RateLimited, TooManyJobs: nothing was stored; the tenant is at its limit.
            QueueFull, RedisUnavailable: nothing was stored, or, with LASTEVENT_DURABLE_SUBMIT, it may have been and the message
                says so; later is worth a try.
        """
        job_id = new_job_id()
        now = time.time()
        stored = request.to_json()
        digest = hashlib.sha256(stored).hexdigest()
        idem = _idempotency(tenant, idempotency_key) if idempotency_key else None
        names = [
            keys.job(job_id),
            keys.log(job_id),
            keys.arq_job(job_id),
            keys.queue(model.lane),
            keys.open_jobs(model.lane),
            keys.jobs_of(tenant),
            keys.wake(model.lane),
        ]
        args = self._submit_args(job_id, model, stored, digest, now, idem, tenant, request_id)
        try:
            answer = await self._store([*names, *([idem] if idem else [])], args)
        except OutOfMemoryError:
            raise RedisUnavailable("Redis is full: it takes no new jobs until some of the old ones expire.") from None
        except WritesRefused:
            raise RedisUnavailable("Redis takes no writes: its disk is full, or too few replicas follow it.") from None
        if answer[0] not in _TAKEN:
            self._refuse(answer, model.lane)
        if answer[0] == b"exists":
            before, _, before_digest = answer[1].decode().partition(" ")
            if before_digest != digest:
                raise IdempotencyConflict
            return Submitted(before, replayed=True, created_at=now)
        return Submitted(job_id, replayed=False, created_at=round(now, 6))

    async def cancel(self, job_id: str, tenant: str = "") -> str:
        """Asks for a job's end (protocol 2): `ended` it was queued and is cancelled, `asked` its worker was told, `over`
        it had ended before.

        Raises:
            JobNotFound: unknown, or another tenant's.
        """
        names = [keys.job(job_id), keys.log(job_id)]
        return await self._end_by_user("cancel", job_id, tenant, names, [self._settings.retention_s])

    async def erase(self, job_id: str, tenant: str = "") -> str:
        """Cancels the job if it is open, then erases everything of it: `ended` it was open, `over` it had ended before.

        Raises:
            JobNotFound: unknown, or another tenant's.
        """
        names = [keys.job(job_id), keys.log(job_id), keys.jobs_of(tenant)]
        return await self._end_by_user("erase", job_id, tenant, names, [])

    async def _store(self, names: list[str], args: list[Arg]) -> list[bytes]:
        """The submit script's answer; with LASTEVENT_DURABLE_SUBMIT once what it wrote is on Redis' disk."""
        if not self._settings.durable_submit:
            return await scripts.run(self._redis, "submit", names, args)  # type: ignore[no-any-return]
        timeout_ms = int(self._settings.durable_timeout_s * 1000)
        async with self._redis.pipeline(transaction=False) as pipe:  # one connection: WAITAOF waits for its writes
            scripts.queue(pipe, "submit", names, args)
            pipe.execute_command("WAITAOF", 1, 0, timeout_ms)
            answer, synced = await pipe.execute(raise_on_error=False)
        if isinstance(answer, NoScriptError):
            await scripts.load_again(self._redis)
            return await self._store(names, args)
        if isinstance(answer, Exception):
            raise answer
        if answer[0] in _TAKEN and (isinstance(synced, Exception) or synced[0] < 1):
            raise RedisUnavailable(
                "Redis did not say in time that the job is on its disk. It may exist: send the same Idempotency-Key again."
            )
        return answer  # type: ignore[no-any-return]

    async def _end_by_user(self, script: ScriptName, job_id: str, tenant: str, names: list[str], retention: list[Arg]) -> str:
        if not is_job_id(job_id):
            raise JobNotFound(job_id)
        fields = ["model", "created_at", "tenant"]
        record = await self._redis.hmget(keys.job(job_id), fields)  # type: ignore[misc]  # redis-py types both
        if record[0] is None or (record[2] or b"").decode() != tenant:  # whose it is never changes
            raise JobNotFound(job_id)
        total_s = round(max(0.0, time.time() - float(record[1])), 6)
        cancelled = Cancelled(reason="user", partial=False, usage=Usage(), timing=Timing(total_s=total_s))
        start = outside_start(record[0].decode(), "")
        args: list[Arg] = [job_id, to_data(cancelled), start, *retention, keys.LIST_TTL_MS]
        answer = await scripts.run(self._redis, script, names, args)
        if answer == b"gone":
            raise JobNotFound(job_id)
        return str(answer.decode())

    def _refuse(self, answer: list[bytes], lane: Lane) -> NoReturn:
        """Raises what the submit script's refusal means."""
        figure, s = int(answer[1]), self._settings
        if answer[0] == b"full":
            raise QueueFull(f"The lane {lane!r} holds {figure} jobs, its limit. Try again later.")
        if answer[0] == b"many":
            raise TooManyJobs(
                f"You have {figure} jobs waiting and running, and may have {s.tenant_jobs_at_once}. "
                "Try again when one has ended, or cancel one.",
                retry_after_s=_WHEN_ONE_HAS_ENDED_S,
            )
        raise RateLimited(
            f"You submit more than {s.tenant_submits_per_minute} jobs a minute.", retry_after_s=math.ceil(figure / 1000)
        )

    def _submit_args(
        self,
        job_id: JobId,
        model: Model,
        stored: bytes,
        digest: str,
        now: float,
        idem: str | None,
        tenant: str,
        request_id: str,
    ) -> list[Arg]:
        s = self._settings
        created_ms = int(now * 1000)
        created_at = f"{now:.6f}"
        oldest_ms = created_ms - (s.open_ttl_s + s.retention_s) * 1000
        record: list[Arg] = [
            "v", FORMAT_VERSION, "request", stored, "model", model.id, "lane", model.lane, "created_at", created_at,
        ]  # fmt: skip
        return [
            job_id,
            to_data(Queued(job_id=job_id, model=model.id, created_at=float(created_at))),
            payload(job_id, created_ms),
            created_ms,
            s.open_ttl_s,
            s.queue_limit,
            keys.LIST_TTL_MS,
            oldest_ms,
            f"{job_id} {digest}",
            s.idempotency_s,
            tenant,
            s.tenant_submits_per_minute,
            s.tenant_jobs_at_once,
            s.open_ttl_s + s.retention_s,
            *record,
            *(["tenant", tenant] if tenant else []),
            *(["idem", idem] if idem else []),
            *(["request_id", request_id] if request_id else []),
        ]
