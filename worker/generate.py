"""The job function: claim, run an attempt, end in exactly one terminal event (protocol 3, P2).

Whatever happens, one of five things is true when it returns, and `Leave` says which; the worker then gives the lease back
accordingly. No exception leaves it but cancellation.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import msgspec
import structlog
from structlog.contextvars import bound_contextvars

from shared.errors import GenerationFailed, InvalidRequest, JobNotFound, LogBehind, LogRefused
from shared.event_log import ClaimRefused, EventLog, Lease, Ownership
from shared.events import Done, Error, Started, Terminal, Usage
from shared.fold import Fold
from shared.ids import EventId
from shared.job import JobRequest
from shared.job_store import JobStore, Record
from shared.models import Model, resolve
from shared.redis_client import UNREACHABLE
from shared.settings import Settings
from worker import recovery
from worker.attempt import Attempt, Outcome
from worker.control import Control
from worker.providers.base import Call, Provider
from worker.recovery import EndNow, GoOn, Limits
from worker.writer import LogHandle, Writer

log = structlog.get_logger()

_PAUSE_S: Final = 0.2
"""Between two looks at a Redis that is away."""

CLAIM_TRIES: Final = 8
"""A claim that finds the log moved on reads it again; only an owner that still writes can move it, and not for long."""


class Leave(NamedTuple):
    """`over`: ended here, or elsewhere. `lost`: another's now. `handover`: open, for the next worker at once.
    `later`: open, to be looked at again after `after_ms`."""

    how: Literal["over", "lost", "handover", "later"]
    after_ms: int = 0


class Tools(msgspec.Struct, frozen=True):
    """What a worker lends to each of its jobs."""

    settings: Settings
    worker_id: str
    log: EventLog
    store: JobStore
    writer: Writer
    providers: Mapping[str, Provider]


async def generate(lease: Lease, control: Control, tools: Tools) -> Leave:
    """Runs one leased job as far as it goes here."""
    with bound_contextvars(job=lease.job_id):
        while True:
            try:
                return await _Run(lease, control, tools).run()
            except JobNotFound:
                log.info("job is gone")
                return Leave("over")
            except UNREACHABLE as error:
                # Nothing is claimed yet; what the log holds decides once Redis is back.
                log.warning("job waits for Redis", error=str(error))
                await asyncio.sleep(_PAUSE_S)
            except Exception:  # a fault of ours must not send the job round and round
                log.exception("job failed for a reason of ours")
                return await _end_after_a_fault(lease, tools)


class _Run:
    """One pass over one job: read, decide, claim, stream, end."""

    def __init__(self, lease: Lease, control: Control, tools: Tools) -> None:
        self._lease = lease
        self._control = control
        self._tools = tools

    async def run(self) -> Leave:
        for _ in range(CLAIM_TRIES):
            record, state = await self._tools.store.look(self._lease.job_id)
            if not record.is_open:
                return Leave("over")
            leave = await self._take_up(record, state)
            if leave is not None:
                return leave
        return Leave("later", after_ms=1000)

    async def _take_up(self, record: Record, state: Fold) -> Leave | None:
        """Decides and claims; None when the log has moved on and must be read again."""
        request = record.request()
        try:
            model = resolve(record.model, self._tools.settings)
        except InvalidRequest as error:  # configured at the submit, not here: a deploy in between
            return await self._end_unclaimed(record, state, recovery.failed(record, state, "bad_request", str(error)))
        provider = self._tools.providers[model.provider]
        decision = recovery.decide(
            record, state, request, self._tools.settings, continues=self._continues(provider, model, request, state)
        )
        if isinstance(decision, EndNow):
            return await self._end_unclaimed(record, state, decision.event)
        if self._control.reason == "handover":
            return Leave("handover")
        claimed = await self._claim(record, state, decision)
        if isinstance(claimed, ClaimRefused):
            return await self._refused(claimed, record, state)
        with bound_contextvars(attempt=claimed.attempt):
            return await self._own(claimed, record, state, request, model, decision)

    async def _claim(self, record: Record, state: Fold, decision: GoOn) -> Ownership | ClaimRefused:
        """Asks until Redis answers: a claim whose reply was lost is answered as the one that it was."""
        while True:
            try:
                return await self._tools.log.claim(
                    self._lease, self._tools.worker_id, record.model, state.last_id, reset=decision.reset
                )
            except UNREACHABLE as error:
                log.warning("the claim waits for Redis", error=str(error))
                await asyncio.sleep(_PAUSE_S)

    async def _own(
        self, owner: Ownership, record: Record, before: Fold, request: JobRequest, model: Model, decision: GoOn
    ) -> Leave:
        """The attempt is ours: from here on the log gets its terminal event from us, unless another claims."""
        log.info("attempt started", model=record.model, reason=owner.reason, reset=decision.reset)
        lost = _copy_of_attempts(before)
        state = before
        state.add(EventId(owner.attempt, 0), _started(owner, record, decision, before, self._tools.worker_id))
        if record.started_at is None:
            record = msgspec.structs.replace(record, started_at=time.time())
        out = self._tools.writer.open(owner)
        try:
            return await self._stream_and_end(out, record, lost, state, request, model, decision)
        except LogBehind as error:
            # Redis came back without a tail of this log. What it holds is the truth now: the next attempt goes on from it.
            log.error("the log lost a tail; handing the job over", error=str(error))
            return Leave("handover")
        except LogRefused as refused:
            log.info("attempt stops", why=refused.code)
            return Leave("lost" if refused.code == "superseded" else "over")

    async def _stream_and_end(
        self, out: LogHandle, record: Record, lost: Fold, state: Fold, request: JobRequest, model: Model, decision: GoOn
    ) -> Leave:
        limits = Limits.of(request, self._tools.settings)
        left = None if request.max_tokens is None else request.max_tokens - state.kept_tokens
        if left is not None and left <= 0:
            return await self._end(out, record, lost, state, Outcome(finish="length"), Usage())
        if request.token_budget is not None and state.kept_tokens >= request.token_budget:
            return await self._end(out, record, lost, state, Outcome(finish="budget"), Usage())
        call = Call(job_id=record.id, model=model.name, request=request, max_tokens=left, prefix=decision.prefix)
        attempt = Attempt(self._tools.providers[model.provider], call, out, state, limits, record.created_at)
        outcome = await self._stream(attempt)
        if self._control.reason == "lost":
            return Leave("lost")
        if self._control.reason == "handover" and outcome is None:
            await out.flush()
            log.info("attempt handed over", kept_tokens=state.kept_tokens)
            return Leave("handover")
        return await self._end(out, record, lost, state, outcome, attempt.usage)

    async def _stream(self, attempt: Attempt) -> Outcome | None:
        """The attempt's outcome; None when it was told to stop."""
        work = asyncio.create_task(attempt.run())
        self._control.watch(work)
        try:
            return await work
        except asyncio.CancelledError:
            if self._control.reason is None or asyncio.current_task().cancelling():  # type: ignore[union-attr]
                work.cancel()
                await asyncio.wait([work])  # the provider is closed before this worker goes on
                raise
            return None
        except LogRefused:
            raise
        except Exception as error:  # an OSError too: it is the provider's, for what is offered to the log never raises one
            log.exception("attempt failed for a reason of ours")
            return Outcome(failure=GenerationFailed("internal", f"The worker failed: {type(error).__name__}."))
        finally:
            self._control.watch(None)

    async def _end(self, out: LogHandle, record: Record, lost: Fold, state: Fold, outcome: Outcome | None, own: Usage) -> Leave:
        """Writes the terminal event, however long Redis is away."""
        usage = recovery.paid(lost, own)
        event = _terminal(record, state, outcome, usage)
        private: dict[str, Any] = {"usage": own}
        while True:
            await out.flush()
            try:
                await self._tools.log.end(out.owner, out.next_seq, event, private)
            except UNREACHABLE as error:
                log.warning("the end waits for Redis", error=str(error))
                await asyncio.sleep(_PAUSE_S)
            else:
                log.info("job ended", type=type(event).__name__.lower(), tokens=state.kept_tokens)
                return Leave("over")

    async def _end_unclaimed(self, record: Record, state: Fold, event: Terminal) -> Leave | None:
        """Ends the job without an attempt of ours; None when the log has moved on since it was read."""
        answer = await self._tools.log.close(
            record.id, event, record.model, self._tools.worker_id, lease=self._lease, seen=state.last_id
        )
        if answer == "moved":
            return None
        log.info("job ended before an attempt", type=type(event).__name__.lower(), answer=answer)
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

    def _continues(self, provider: Provider, model: Model, request: JobRequest, state: Fold) -> bool:
        prefix = recovery.prefix_of(state)
        call = Call(job_id=self._lease.job_id, model=model.name, request=request, prefix=prefix)
        return state.only_text and provider.can_continue(call)


async def _end_after_a_fault(lease: Lease, tools: Tools) -> Leave:
    """The job ends as `internal`, with whatever its log holds."""
    try:
        record = await tools.store.record(lease.job_id)
        event = recovery.failed(record, Fold(), "internal", "The worker failed at this job for a reason of its own.")
        await tools.log.close(lease.job_id, event, record.model, tools.worker_id, lease=lease)
    except JobNotFound:
        return Leave("over")
    except UNREACHABLE:
        return Leave("later", after_ms=1000)
    return Leave("over")


def _terminal(record: Record, state: Fold, outcome: Outcome | None, usage: Usage) -> Terminal:
    """`outcome` None: a cancel stopped the attempt."""
    timing = recovery.final_timing(record, state)
    partial = state.kept_tokens > 0
    if outcome is None:
        return msgspec.structs.replace(recovery.cancelled(record, state), usage=usage)
    if outcome.failure is not None:
        failure = outcome.failure
        return Error(failure.code, str(failure), failure.retryable, partial, usage, timing)
    assert outcome.finish is not None, "an outcome is a finish or a failure"
    return Done(outcome.finish, usage, timing)


def _started(owner: Ownership, record: Record, decision: GoOn, before: Fold, worker_id: str) -> Started:
    """The entry that the claim wrote, as the fold takes it in."""
    reset = decision.reset and owner.reason != "first"
    return Started(owner.attempt, record.model, worker_id, owner.reason, reset, str(before.last_id))


def _copy_of_attempts(state: Fold) -> Fold:
    """The attempts before ours, whose cost is counted from the log."""
    lost = Fold()
    lost.attempts = [msgspec.structs.replace(attempt) for attempt in state.attempts]
    return lost
