"""A claimed job, from its claim to its end: its attempts one after the other, each a provider's stream into the log.

A failed call is followed by another attempt of the same owner (`retries.py` says which), which is claimed like the first one
and opens with its own `started`; a fallback that runs in another lane is given to a worker there.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec
import structlog
from structlog.contextvars import bind_contextvars

from shared.errors import DeadlinePassed, GenerationFailed, InvalidRequest, LogBehind, LogRefused, Superseded, UpstreamOver
from shared.event_log import EventLog
from shared.events import Done, Error, FinishReason, Started, Terminal, Usage
from shared.fold import AttemptEnd, Fold
from shared.ids import EventId
from shared.job import JobFailure, JobRequest
from shared.job_store import JobStore, Record
from shared.log_commands import private_of_start
from shared.models import Model, resolve
from shared.ownership import KeptUpstream, Ownership
from shared.redis_client import NOT_NOW
from shared.settings import Settings
from worker import recovery
from worker.attempt import Attempt, Outcome
from worker.company import Company, Place
from worker.control import Control, Leave
from worker.job_upstream import JobUpstream
from worker.metrics import WorkerMetrics
from worker.providers.base import Call, Provider, Upstream
from worker.recovery import GoOn, Limits
from worker.retries import NextCall, next_call
from worker.tokens import Tokens
from worker.upstreams import Upstreams
from worker.writer import Writer

log = structlog.get_logger()

T = TypeVar("T")

PAUSE_S: Final = 0.2
"""Between two looks at a Redis that is away."""


class Tools(msgspec.Struct, frozen=True):
    """What a worker lends to each of its jobs."""

    settings: Settings
    worker_id: str
    log: EventLog
    store: JobStore
    writer: Writer
    providers: Mapping[str, Provider]
    tokens: Tokens
    company: Company
    upstreams: Upstreams
    metrics: WorkerMetrics


class OwnedJob:
    """The log gets its terminal event from here, unless another claims the job meanwhile.

    `state` is the log as it was read before the claim; it is kept in step with what is offered to the log.
    """

    def __init__(
        self,
        owner: Ownership,
        record: Record,
        state: Fold,
        request: JobRequest,
        model: Model,
        control: Control,
        tools: Tools,
        place: Place,
    ) -> None:
        self._record = record
        self._state = state
        self._request = request
        self._control = control
        self._tools = tools
        self._place = place
        self._limits = Limits.of(request, tools.settings)
        self._owner, self._model = owner, model
        self._decision = GoOn(reset=False, prefix=None)
        self._upstream = JobUpstream(self._note, tools.upstreams)
        self._out = tools.writer.open(owner)

    async def run(self, decision: GoOn) -> Leave:
        """Runs attempts until the job has ended or is not run here any more. The first one is claimed already."""
        self._open(self._owner, self._model, decision, self._record.before, self._record.upstream)
        try:
            return await self._attempts()
        finally:
            self._tools.writer.close(self._out)
            await self._upstream.settle()

    async def _attempts(self) -> Leave:
        try:
            leave = await self._turn()
            while leave is None:
                leave = await self._attempt()
            return leave
        except LogBehind as error:
            # Redis came back without a tail that is not held here any more. What it has is the truth now: the next attempt goes
            # on from that.
            log.error("the log lost a tail; handing the job over", error=str(error))
            return Leave("handover")
        except Superseded as refused:
            log.info("attempt stops", why=refused.code)
            self._upstream.lost()
            return Leave("lost")
        except LogRefused as refused:
            log.info("attempt stops", why=refused.code)
            self._upstream.abandon()
            return Leave("over")

    def _open(
        self, owner: Ownership, model: Model, decision: GoOn, before: AttemptEnd | None, upstream: KeptUpstream | None
    ) -> None:
        """An attempt was claimed: what follows is its own. `upstream` is what the attempt before it read."""
        reset = decision.reset and owner.reason != "first"
        started = Started(
            owner.attempt, model.id, self._tools.worker_id, owner.reason, reset, str(self._state.last_id)
        )  # as the script wrote it
        self._state.add(EventId(owner.attempt, 0), started, private_of_start(before, decision.position))
        self._owner, self._model, self._decision = owner, model, decision
        self._out.upstream = upstream if decision.upstream is not None else None
        self._upstream.opened(self._out.upstream, left=upstream is not None and decision.upstream is None)
        self._tools.metrics.opened(owner.reason)
        bind_contextvars(attempt=owner.attempt)  # `generate` takes it off again
        log.info(
            "attempt started", model=model.id, reason=owner.reason, reset=reset, reads_on=decision.upstream is not None
        )  # fmt: skip

    async def _turn(self) -> Leave | None:
        """None once the job may run; a suspect waits here until it is alone."""
        place = self._place
        if not place.turn.is_set():
            leave = await self._wait_for_turn()
            if leave is not None:
                return leave
        # Company that leaves is no news: it would only race with the next one's claim, which says otherwise.
        if place.told is not None and place.told != place.solitude:
            place.told = place.solitude
            await self._with_a_whole_log(lambda: self._tools.log.note_solitude(self._owner, place.told))
        return None

    async def _wait_for_turn(self) -> Leave | None:
        log.warning("the job lost several workers; it waits until it can run alone")
        left_s = self._record.created_at + self._limits.total_s - time.time()
        try:
            async with asyncio.timeout(left_s):
                await self._until_told_to_stop(self._place.turn.wait())
        except TimeoutError:
            late = DeadlinePassed(f"The job took longer than its {self._limits.total_s:g} s in all.")
            return await self._end(Outcome(failure=late), Usage())
        if self._control.reason is None:
            return None
        return await self._leave_as_told() or await self._end(None, Usage())

    async def _attempt(self) -> Leave | None:
        """Streams one attempt and does what follows from its outcome; None when another attempt was claimed after it."""
        full = await self._limit_reached()
        if full is not None:
            return await self._end(Outcome(finish=full), Usage())
        attempt = Attempt(
            self._provider_of(self._model), self._call(), self._out, self._state, self._limits, self._record.created_at,
            self._tools.tokens, self._place.made, self._found, self._tools.metrics.tally,
        )  # fmt: skip
        began_at = time.monotonic()
        outcome = await self._until_told_to_stop(self._outcome_of(attempt))
        took_s = time.monotonic() - began_at
        if (outcome is None or self._control.reason == "lost") and (leave := await self._leave_as_told()) is not None:
            return leave
        if outcome is not None and isinstance(outcome.failure, UpstreamOver):
            self._upstream.readable = False
        own = await attempt.settle()
        self._count_call(took_s, attempt.first_after_s, own, outcome)
        if outcome is not None and outcome.failure is not None:
            following = next_call(outcome.failure, self._state, self._request, self._record.created_at, self._tools.settings)
            if following is not None:
                return await self._go_on(following, AttemptEnd(own, _told(outcome.failure)))
        return await self._end(outcome, own)

    def _count_call(self, took_s: float, first_s: float | None, own: Usage, outcome: Outcome | None) -> None:
        metrics, error = self._tools.metrics, "" if outcome is not None else "cancelled"
        if outcome is not None and outcome.failure is not None:
            error = outcome.failure.code
            metrics.failed_calls.labels(error).inc()
        metrics.called(self._model, took_s, first_s, own, error)

    async def _outcome_of(self, attempt: Attempt) -> Outcome:
        try:
            return await attempt.run()
        except LogRefused:
            raise
        except Exception as error:  # an OSError too: it is the provider's, for what is offered to the log never raises one
            log.exception("attempt failed for a reason of ours")
            return Outcome(failure=GenerationFailed("internal", f"The worker failed: {type(error).__name__}."))

    async def _go_on(self, following: NextCall, before: AttemptEnd) -> Leave | None:
        """The attempt that follows a failed one; None once it is claimed."""
        log.info(
            "call failed; going on", code=before.failure.code, reason=following.reason, model=following.model,
            after_s=round(following.after_s, 3),
        )  # fmt: skip
        await self._until_told_to_stop(asyncio.sleep(following.after_s))
        if self._control.reason is not None:
            return await self._leave_as_told() or await self._end(None, before.usage)
        try:
            model = resolve(following.model, self._tools.settings)
        except InvalidRequest as error:  # configured at the submit, not here: a deploy in between
            failure = GenerationFailed("bad_request", str(error))
            return await self._end(Outcome(failure=failure), before.usage)
        await self._out.flush()
        if model.lane != self._record.lane:
            await self._with_a_whole_log(
                lambda: self._tools.log.move(self._owner, self._record.lane, model.lane, model.id, before)
            )
            self._upstream.opened(None, left=self._upstream.kept is not None)
            return Leave("lost")
        return await self._claim_again(following, model, before)

    async def _claim_again(self, following: NextCall, model: Model, before: AttemptEnd) -> Leave | None:
        provider, kept = self._provider_of(model), self._upstream.kept
        continues = recovery.continues(provider, model, self._request, self._state)
        read_on = recovery.read_on(kept if self._upstream.readable else None, provider, model, self._request, self._state)
        decision = recovery.go_on(self._state, self._request, continues=continues, upstream=read_on)
        seen = EventId(self._owner.attempt, self._out.next_seq - 1)
        claimed = await self._with_a_whole_log(
            lambda: self._tools.log.again(
                self._owner, seen, self._tools.worker_id, model.id, following.reason, reset=decision.reset, before=before,
                read_on=decision.position,
            )
        )  # fmt: skip
        if claimed is None:  # a cancel whose signal is still on its way
            return await self._end(None, before.usage)
        self._out = self._tools.writer.open(claimed, after=self._out)
        self._open(claimed, model, decision, before, kept)
        return None

    async def _with_a_whole_log(self, ask: Callable[[], Awaitable[T]]) -> T:
        """What a script answers that builds on what this attempt wrote. Where Redis forgot some of that, it is written again
        first; LogRefused, where that cannot be."""
        while True:
            try:
                return await until_redis_answers(ask)
            except (LogBehind, Superseded) as refused:
                log.info("the log is compared", why=refused.code)
                await self._out.make_whole()

    async def _until_told_to_stop(self, work: Coroutine[Any, Any, T]) -> T | None:
        """What the work returns; None when it was told to stop, and is over."""
        task = asyncio.create_task(work)
        self._control.watch(task)
        try:
            return await task
        except asyncio.CancelledError:
            if self._control.reason is None or asyncio.current_task().cancelling():  # type: ignore[union-attr]
                task.cancel()
                await asyncio.wait([task])  # the provider is closed before this worker goes on
                raise
            return None
        finally:
            self._control.watch(None)

    async def _leave_as_told(self) -> Leave | None:
        """Leaves the job open; None where it was cancelled, and is to be ended."""
        if self._control.reason == "lost":
            self._upstream.lost()
            return Leave("lost")
        if self._control.reason == "handover":
            await self._upstream.hand_over()
            await self._out.flush()
            log.info("attempt handed over", at=str(self._state.last_id))
            return Leave("handover")
        self._upstream.abandon()  # begun before anything is waited for (protocol P6)
        return None

    async def _end(self, outcome: Outcome | None, own: Usage) -> Leave:
        """Writes the terminal event, however long Redis is away. `outcome` None: a cancel stopped the attempt."""
        if outcome is None or outcome.finish in (None, "budget"):
            self._upstream.abandon()
        else:
            self._upstream.over()
        earlier = self._state.attempts[:-1]
        await self._tools.tokens.tell_for_the_dead(earlier, self._request, own.input_tokens)
        event = self._terminal(outcome, recovery.paid(earlier, own))
        await self._out.end(event, {"usage": own})
        self._tools.metrics.ended_job(self._model, event)
        log.info("job ended", type=type(event).__name__.lower(), tokens=self._state.kept_tokens)
        return Leave("over")

    def _terminal(self, outcome: Outcome | None, usage: Usage) -> Terminal:
        record, state = self._record, self._state
        if outcome is None:
            return msgspec.structs.replace(recovery.cancelled(record, state), usage=usage)
        timing = recovery.final_timing(record, state)
        if outcome.failure is not None:
            failure = outcome.failure
            return Error(failure.code, str(failure), failure.retryable, state.kept_tokens > 0, usage, timing)
        assert outcome.finish is not None, "an outcome is a finish or a failure"
        return Done(outcome.finish, usage, timing)

    async def _limit_reached(self) -> FinishReason | None:
        """Why there is nothing left to generate: the kept text is as long as it may be."""
        request, tokens = self._request, self._tools.tokens
        if request.max_tokens is None and request.token_budget is None:
            return None  # nor is it worth waiting for the encoding
        kept = self._state.kept_tokens = await tokens.total(await tokens.count_of(self._state))
        # A response that is read on keeps to max_tokens by itself, and by the provider's own count.
        if request.max_tokens is not None and kept >= request.max_tokens and self._decision.upstream is None:
            return "length"
        return "budget" if request.token_budget is not None and kept >= request.token_budget else None

    def _call(self) -> Call:
        limit = self._request.max_tokens
        left = None if limit is None else limit - self._state.kept_tokens
        return Call(
            self._record.id, self._model.name, self._request, left, self._decision.prefix, self._decision.upstream,
            self._record.request_id, self._record.tenant,
        )  # fmt: skip

    async def _found(self, upstream: Upstream) -> None:
        """The attempt's response goes on by itself, and this is its id."""
        await self._upstream.note(KeptUpstream(self._model.id, upstream.id))

    async def _note(self, kept: KeptUpstream) -> None:
        self._out.upstream = kept
        await self._with_a_whole_log(lambda: self._tools.log.note_upstream(self._owner, kept))

    def _provider_of(self, model: Model) -> Provider:
        return self._tools.providers[model.provider]


async def until_redis_answers(ask: Callable[[], Awaitable[T]]) -> T:
    """Asks until Redis answers; what is asked may be asked again after a lost reply."""
    waiting = False
    while True:
        try:
            return await ask()
        except NOT_NOW as error:
            if not waiting:
                log.warning("the log's scripts wait for Redis", error=str(error))
            waiting = True
            await asyncio.sleep(PAUSE_S)


def _told(failure: GenerationFailed) -> JobFailure:
    return JobFailure(failure.code, str(failure), failure.retryable)
