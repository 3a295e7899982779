"""What follows a failed call: the same model again, the next fallback, or the end. No I/O.

    failed ──may pass, tries left──▶ the same model, after a pause           `started`, reason `retry`
           ──else──────────────────▶ the next of the request's fallbacks     `started`, reason `fallback`
           ──none left─────────────▶ the job ends with this failure

What happened before is read from the log's own `started` events, so that whoever takes the job over counts on. Attempts that
followed a dead or stopped worker are in neither count: no provider failed there.
"""

import random
import time

import msgspec

from shared.errors import DeadlinePassed, GenerationFailed, UpstreamExpired
from shared.events import StartReason
from shared.fold import Fold
from shared.job import JobRequest
from shared.settings import Settings
from worker.recovery import Limits


class NextCall(msgspec.Struct, frozen=True):
    """The call that follows a failed one, after a pause of `after_s` seconds."""

    reason: StartReason
    model: str
    after_s: float


def next_call(
    failure: GenerationFailed, state: Fold, request: JobRequest, created_at: float, settings: Settings
) -> NextCall | None:
    """None where the job ends with this failure."""
    if isinstance(failure, DeadlinePassed) or (request.on_interrupt == "fail" and state.kept_tokens):
        return None
    failed_calls = 1 + sum(attempt.reason in ("retry", "fallback") for attempt in state.attempts)
    if failed_calls >= settings.max_failures:
        return None
    left_s = created_at + Limits.of(request, settings).total_s - time.time()
    pause_s = _pause_s(failure, state, settings)
    if pause_s is not None and pause_s < left_s:
        return NextCall("retry", state.attempts[-1].model, pause_s)
    fallback = _next_fallback(state, request)
    return NextCall("fallback", fallback, 0.0) if fallback is not None and left_s > 0 else None


def current_model(state: Fold, requested: str) -> str:
    """The model that a job is at: that of its newest attempt."""
    return state.attempts[-1].model if state.attempts else requested


def _pause_s(failure: GenerationFailed, state: Fold, settings: Settings) -> float | None:
    """Seconds until the same model is called again; None where it is not: it would fail again, has failed often
    enough, or asks for too long a wait."""
    failed = _failed_calls_of_this_model(state)
    asked_s = failure.retry_after_s or 0.0
    if not failure.retryable or failed >= settings.model_tries or asked_s > settings.retry_after_most_s:
        return None
    if isinstance(failure, UpstreamExpired):
        return 0.0  # nothing is overloaded, and nobody waits for the same
    jitter_s = random.uniform(0.0, min(settings.retry_base_s * 2 ** (failed - 1), settings.retry_longest_s))
    return asked_s + jitter_s  # on top of what was asked for: all who were told the same would come back as one


def _failed_calls_of_this_model(state: Fold) -> int:
    """The one that failed just now too."""
    retries = 0
    for attempt in reversed(state.attempts):
        if attempt.reason == "retry":
            retries += 1
        elif attempt.reason in ("first", "fallback"):
            break
    return 1 + retries


def _next_fallback(state: Fold, request: JobRequest) -> str | None:
    tried = sum(attempt.reason == "fallback" for attempt in state.attempts)
    return request.fallbacks[tried] if tried < len(request.fallbacks) else None
