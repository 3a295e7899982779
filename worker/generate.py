"""The job function: look at a leased job, claim it, and have it run to exactly one terminal event (protocol 3, P2).

Whatever happens, one of five things is true when it returns, and `Leave` says which; the worker then gives the lease back
accordingly. No exception leaves it but cancellation.
"""

import asyncio
import time
from typing import Final

import msgspec
import structlog
from structlog.contextvars import bind_contextvars, bound_contextvars, unbind_contextvars

from shared.errors import InvalidRequest, JobNotFound
from shared.event_log import ClaimRefused
from shared.events import Terminal
from shared.fold import Fold
from shared.ids import START
from shared.job import JobRequest
from shared.job_store import Found, Record
from shared.models import Model, resolve
from shared.ownership import Lease
from shared.redis_client import NOT_NOW
from worker import recovery
from worker.company import Place
from worker.control import Control, Leave
from worker.leases import Taken
from worker.owned_job import PAUSE_S, OwnedJob, Tools, until_redis_answers
from worker.recovery import EndNow, GoOn
from worker.retries import current_model

log = structlog.get_logger()

CLAIM_TRIES: Final = 8
"""A claim that finds the log moved on reads it again; only an owner that still writes can move it, and not for long."""


async def generate(taken: Taken, control: Control, tools: Tools) -> Leave:
    """Runs one leased job as far as it goes here. Every line of the log names the job meanwhile, and, once they are known, the
    attempt and the request that submitted it."""
    with bound_contextvars(job=taken.lease.job_id):
        try:
            return await _run(taken, control, tools)
        finally:
            unbind_contextvars("attempt", "request_id")


async def _run(taken: Taken, control: Control, tools: Tools) -> Leave:
    lease, found = taken.lease, taken.found
    while True:
        try:
            return await _Run(lease, control, tools).run(found)
        except JobNotFound:
            log.info("job is gone")
            return Leave("over")
        except NOT_NOW as error:
            # Nothing is claimed yet; what the log holds decides once Redis is back.
            log.warning("job waits for Redis", error=str(error))
            found = None
            await asyncio.sleep(PAUSE_S)
        except Exception:  # a fault of ours must not send the job round and round
            log.exception("job failed for a reason of ours")
            return await _end_after_a_fault(lease, tools)


class _Run:
    """One pass over one job: read, decide, claim."""

    def __init__(self, lease: Lease, control: Control, tools: Tools) -> None:
        self._lease = lease
        self._control = control
        self._tools = tools

    async def run(self, found: Found | None) -> Leave:
        """`found`: the job as the lease found it, which saves the first look."""
        for _ in range(CLAIM_TRIES):
            job_id = self._lease.job_id
            record, state = found.look(job_id) if found is not None else await self._tools.store.look(job_id)
            found = None
            bind_contextvars(attempt=state.last_id.attempt, **_named(record))
            if not record.is_open:
                return Leave("over")
            leave = await self._take_up(record, state)
            if leave is not None:
                return leave
        return Leave("later", after_ms=1000)

    async def _take_up(self, record: Record, state: Fold) -> Leave | None:
        """Decides and claims; None when the log has moved on and must be read again."""
        request, tools = record.request(), self._tools
        try:
            model = resolve(record.fallback or current_model(state, record.model), tools.settings)
        except InvalidRequest as error:  # configured at the submit, not here: a deploy in between
            return await self._end_unclaimed(record, state, recovery.failed(record, state, "bad_request", str(error)))
        provider = tools.providers[model.provider]
        continues = recovery.continues(provider, model, request, state)
        read_on = recovery.read_on(record.upstream, provider, model, request, state)
        decision = recovery.decide(record, state, request, tools.settings, continues=continues, upstream=read_on)
        if isinstance(decision, EndNow):
            return await self._end_unclaimed(record, state, decision.event)
        if self._control.reason == "handover":
            return Leave("handover")
        # A text that starts over must come as far as it was; to one that goes on any piece is one more.
        was_lost_at = state.kept_tokens if decision.reset else 0
        suspected = recovery.must_run_alone(record, tools.settings)
        place = tools.company.enter(record.id, alone_until=was_lost_at if suspected else None)
        if place is None:
            log.info("another job runs alone here; handing this one over")
            return Leave("handover")
        try:
            return await self._claim(record, state, request, model, decision, place)
        finally:
            place.leave()

    async def _claim(
        self, record: Record, state: Fold, request: JobRequest, model: Model, decision: GoOn, place: Place
    ) -> Leave | None:
        tools = self._tools
        place.told = place.solitude
        claimed = await until_redis_answers(
            lambda: tools.log.claim(
                self._lease, tools.worker_id, model.id, state.last_id, reset=decision.reset, before=record.before,
                solitude=place.told, beside=place.beside, upstream=record.upstream, read_on=decision.position,
            )
        )  # fmt: skip
        if isinstance(claimed, ClaimRefused):
            return await self._refused(claimed, record, state)
        if record.started_at is None:
            record = msgspec.structs.replace(record, started_at=time.time())
            tools.metrics.claimed(time.time() - record.created_at)
        return await OwnedJob(claimed, record, state, request, model, self._control, tools, place).run(decision)

    async def _end_unclaimed(self, record: Record, state: Fold, event: Terminal) -> Leave | None:
        """Ends the job without an attempt of ours; None when the log has moved on since it was read."""
        await self._tools.tokens.tell_for_the_dead(state.attempts, record.request())
        event = msgspec.structs.replace(event, usage=state.usage())
        answer = await self._tools.log.close(
            record.id, event, record.model, self._tools.worker_id, lease=self._lease, seen=state.last_id
        )
        if answer == "moved":
            return None
        log.info("job ended before an attempt", type=type(event).__name__.lower(), answer=answer)
        if record.upstream is not None:
            await self._tools.upstreams.sweep()
        return Leave("lost" if answer == "lost" else "over")

    async def _refused(self, refused: ClaimRefused, record: Record, state: Fold) -> Leave | None:
        if refused.why == "cancelled":
            return await self._end_unclaimed(record, state, recovery.cancelled(record, state))
        if refused.why == "wait":
            log.info("takeover waits: the owner may have lived through an outage of Redis", ms=refused.wait_ms)
            return Leave("later", after_ms=refused.wait_ms)
        if refused.why == "moved":
            return None
        return Leave("lost" if refused.why == "lost" else "over")


def _named(record: Record) -> dict[str, str]:
    return {"request_id": record.request_id} if record.request_id else {}


async def _end_after_a_fault(lease: Lease, tools: Tools) -> Leave:
    """The job ends as `internal`, with whatever its log holds: what was written before the fault stands, and was paid for."""
    try:
        record = await tools.store.record(lease.job_id)
        for _ in range(CLAIM_TRIES):
            state = await _readable(lease.job_id, tools)
            event = recovery.failed(record, state, "internal", "The worker failed at this job for a reason of its own.")
            seen = state.last_id if state.last_id != START else None
            answer = await tools.log.close(lease.job_id, event, record.model, tools.worker_id, lease=lease, seen=seen)
            if answer != "moved":  # by an append that was on its way
                return Leave("over")
    except JobNotFound:
        return Leave("over")
    except NOT_NOW:
        return Leave("later", after_ms=1000)
    return Leave("later", after_ms=1000)


async def _readable(job_id: str, tools: Tools) -> Fold:
    """The log as one state; nothing of one that cannot be read, which may be the fault itself."""
    try:
        return await tools.log.fold(job_id)
    except ValueError as error:
        log.error("the log cannot be read; it ends as it is", error=repr(error))
        return Fold()
