"""What a claim does with a job as it is found: start it, go on from its text, start it over, or end it. No I/O."""

import time
from collections.abc import Iterable
from typing import Final, NamedTuple

import msgspec

from shared.errors import ErrorCode
from shared.events import Cancelled, Error, Terminal, Timing, Usage
from shared.fold import AttemptState, Fold, Pace
from shared.job import JobRequest
from shared.job_store import Record, timing_so_far
from shared.models import Model
from shared.ownership import KeptUpstream
from shared.settings import Settings
from worker.providers.base import Call, Prefix, Provider, ResumableProvider, Upstream

VICTIM_FACTOR: Final = 3
"""A job that never was the only one of a worker that died may lose so many times `max_losses`: the killer was another, but
nothing goes round for ever."""


class GoOn(msgspec.Struct, frozen=True):
    """Claim the next attempt. `prefix` is the kept text to continue, None for a start from nothing; `upstream` the response to
    read on instead."""

    reset: bool
    prefix: Prefix | None
    upstream: Upstream | None = None

    @property
    def position(self) -> int | None:
        return self.upstream.position if self.upstream is not None else None


class EndNow(msgspec.Struct, frozen=True):
    """No provider is called: the job ends with this event."""

    event: Terminal


class Limits(msgspec.Struct, frozen=True):
    """A job's time limits, in seconds; the request's own, bounded by the server's (protocol 2.1 `timeouts`)."""

    queue_s: float
    first_token_s: float
    idle_s: float
    total_s: float

    @classmethod
    def of(cls, request: JobRequest, settings: Settings) -> "Limits":
        asked = request.timeouts
        return cls(
            queue_s=_within(asked.queue_s, settings.queue_timeout_s),
            first_token_s=_within(asked.first_token_s, settings.first_token_timeout_s),
            idle_s=_within(asked.idle_s, settings.idle_timeout_s),
            total_s=_within(asked.total_s, settings.total_timeout_s),
        )


class Losses(NamedTuple):
    """Workers that died while they ran a job, as the claim that follows counts them."""

    all: int
    alone: int
    """Those that ran no other job: this one is what killed them, or nothing here did."""

    @classmethod
    def of(cls, record: Record) -> "Losses":
        if not _worker_was_lost(record) or record.solitude == "waits":
            return cls(record.losses, record.lost_alone)
        return cls(record.losses + 1, record.lost_alone + (record.solitude == "alone"))

    def are_too_many(self, settings: Settings) -> bool:
        if self.all > VICTIM_FACTOR * settings.max_losses:
            return True
        return self.all > settings.max_losses and self.alone > 0


def decide(
    record: Record, state: Fold, request: JobRequest, settings: Settings, *, continues: bool, upstream: Upstream | None = None
) -> GoOn | EndNow:
    """`continues`: whether the model can go on exactly from the kept text (protocol P4). `upstream`: what can be read on."""
    limits = Limits.of(request, settings)
    age = time.time() - record.created_at
    if record.cancel_asked:
        return EndNow(cancelled(record, state))
    if age > limits.total_s:
        return EndNow(failed(record, state, "timeout", f"The job took longer than its {limits.total_s:g} s in all."))
    if record.status == "queued":
        if age > limits.queue_s:
            waited = f"No worker was free for the job within its {limits.queue_s:g} s in the queue."
            return EndNow(failed(record, state, "expired", waited))
        return GoOn(reset=False, prefix=None)
    if _worker_was_lost(record):
        losses = Losses.of(record)
        if losses.are_too_many(settings):
            lost = f"{losses.all} workers were lost with this job; it is not tried again."
            return EndNow(failed(record, state, "attempts_exhausted", lost))
        if request.on_interrupt == "fail":
            return EndNow(failed(record, state, "interrupted", "The worker was lost, and on_interrupt is fail."))
    return go_on(state, request, continues=continues, upstream=upstream)


def must_run_alone(record: Record, settings: Settings) -> bool:
    """Whether the job is suspected of killing its workers."""
    return Losses.of(record).all >= settings.alone_after_losses


def go_on(state: Fold, request: JobRequest, *, continues: bool, upstream: Upstream | None = None) -> GoOn:
    """What a new attempt does with the output so far."""
    if request.on_interrupt == "restart" and state.kept_tokens:
        return GoOn(reset=True, prefix=None)
    if upstream is not None or not state.kept_tokens:
        return GoOn(reset=False, prefix=None, upstream=upstream)
    return GoOn(reset=False, prefix=prefix_of(state)) if continues else GoOn(reset=True, prefix=None)


def read_on(kept: KeptUpstream | None, provider: Provider, model: Model, request: JobRequest, state: Fold) -> Upstream | None:
    """The response upstream that the next attempt can read on, from where the log stands; from half a tool call too."""
    if kept is None or kept.model != model.id or not isinstance(provider, ResumableProvider):
        return None
    upstream = Upstream(kept.id, state.upstream_position or 0)
    return upstream if provider.can_continue(Call("", model.name, request, upstream=upstream)) else None


def continues(provider: Provider, model: Model, request: JobRequest, state: Fold) -> bool:
    """Whether a model can go on exactly from the kept text (protocol P4): not from half a thought or tool call."""
    call = Call(job_id="", model=model.name, request=request, prefix=prefix_of(state))
    return state.only_text and provider.can_continue(call)


def prefix_of(state: Fold) -> Prefix:
    ids = tuple(state.token_ids) if state.every_token_has_ids else ()
    return Prefix(text=state.text, ids=ids)


def cancelled(record: Record, state: Fold) -> Cancelled:
    return Cancelled(reason="user", partial=state.kept_tokens > 0, usage=state.usage(), timing=final_timing(record, state))


def failed(record: Record, state: Fold, code: ErrorCode, message: str) -> Error:
    return Error(
        code=code,
        message=message,
        retryable=code != "interrupted",
        partial=state.kept_tokens > 0,
        usage=state.usage(),
        timing=final_timing(record, state),
    )


def final_timing(record: Record, state: Fold) -> Timing:
    """As it stands now. What only the one who wrote the output knows is null where another ends the job."""
    so_far, pace = timing_so_far(record, state), state.pace
    return Timing(
        queue_s=so_far.queue_s,
        ttft_s=so_far.ttft_s,
        total_s=round(max(0.0, time.time() - record.created_at), 6),
        tokens_per_s=_rate(state, pace) if pace is not None else None,
        inter_token_p50_s=pace.gap_p50_s if pace is not None else None,
        inter_token_p99_s=pace.gap_p99_s if pace is not None else None,
    )


def paid(earlier: Iterable[AttemptState], attempt: Usage) -> Usage:
    """What all attempts cost."""
    return sum((before.usage() for before in earlier), attempt)


def _rate(state: Fold, pace: Pace) -> float | None:
    """Tokens a second from the first kept piece to the last, whatever came between them. The first piece's own tokens took
    the time to the first token, not this one."""
    if state.first_kept_at is None or pace.last_at <= state.first_kept_at or pace.tokens <= 0:
        return None
    return round(pace.tokens / (pace.last_at - state.first_kept_at), 3)


def _worker_was_lost(record: Record) -> bool:
    """A started job that nobody gave away: what claims it takes it over."""
    return record.status == "running" and not record.handover and record.fallback is None


def _within(asked: float | None, bound: float) -> float:
    return bound if asked is None else min(asked, bound)
