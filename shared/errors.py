"""Every failure this project names, as one tree.

    LasteventError
    ├── InvalidRequest            the caller can mend it: names the field and what would be right
    │   └── BadCursor             a Last-Event-ID that is not of the form <attempt>-<seq>
    ├── JobNotFound               unknown, erased, expired, or another tenant's
    ├── IdempotencyConflict       the key was used before with another body
    ├── Unavailable               passes by itself: Redis away, queue full, draining
    │   ├── QueueFull
    │   ├── RedisUnavailable
    │   └── TenantLimit           the caller's own limit, not the server's
    │       ├── RateLimited
    │       └── TooManyJobs
    ├── LogRefused                an append that the log did not take
    │   ├── Superseded            a newer owner has the job, or it has none any more
    │   ├── AlreadyEnded          the job has its terminal event
    │   ├── LogErased             the job was deleted, or has expired
    │   └── LogBehind             the log lost a tail that it had taken
    ├── ConfigurationError        the operator can mend it: one clear line, exit code 2
    └── GenerationFailed          an attempt's failure, as protocol 4.1 tells it: `code`, `retryable`
        ├── DeadlinePassed        one of the job's own deadlines cut the attempt: the job ends with it
        └── UpstreamOver          what went on at the provider's is over there: nothing is left to read on
            └── UpstreamExpired   it is not kept any more, or not streamed; the failure is nobody's: start anew at once

`code` is the stable slug that goes on the wire; `retryable` says whether the same call may succeed later without a change.
The table from error to HTTP status is `web/problems.py`.
"""

from typing import ClassVar, Literal

ErrorCode = Literal[
    "timeout", "connection", "rate_limit", "auth", "bad_request", "overloaded", "content_filter", "incomplete",
    "interrupted", "attempts_exhausted", "expired", "unsupported", "internal",
]  # fmt: skip
"""The `code` list of protocol 4.1."""

RETRYABLE_CODES: frozenset[ErrorCode] = frozenset(
    {"timeout", "connection", "rate_limit", "overloaded", "incomplete", "interrupted", "attempts_exhausted", "expired"}
)
"""Codes for which the same request may succeed later, unchanged."""


class LasteventError(Exception):
    """The root. `str(error)` is one sentence for a person, without a secret in it."""

    code: ClassVar[str] = "internal"
    retryable: ClassVar[bool] = False


class FieldProblem(tuple[str, str]):
    """A field's path, as `messages[0].role`, and what would be right there."""

    __slots__ = ()

    def __new__(cls, field: str, message: str) -> "FieldProblem":
        return super().__new__(cls, (field, message))

    @property
    def field(self) -> str:
        return self[0]

    @property
    def message(self) -> str:
        return self[1]


class InvalidRequest(LasteventError):
    """What the caller sent cannot be taken. Nothing was stored."""

    code = "invalid_request"

    def __init__(self, detail: str, problems: tuple[FieldProblem, ...] = ()) -> None:
        super().__init__(detail)
        self.problems = problems


class BadCursor(InvalidRequest):
    """The cursor is not an event id (protocol 4.1)."""

    code = "bad_cursor"


class JobNotFound(LasteventError):
    """No such job for this caller: unknown, erased or expired (protocol 4.3)."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"There is no job {job_id!r}: it never was, was deleted, or its log has expired.")


class IdempotencyConflict(LasteventError):
    """The Idempotency-Key came before with another body (protocol 2.1)."""

    code = "idempotency_conflict"

    def __init__(self) -> None:
        super().__init__("This Idempotency-Key was used before with another body. Send a new key for a new request.")


class Unavailable(LasteventError):
    """Not now; the same call may succeed after `retry_after_s` seconds."""

    code = "unavailable"
    retryable = True

    def __init__(self, detail: str, retry_after_s: int = 2) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class QueueFull(Unavailable):
    """The lane has as many waiting jobs as the settings allow."""

    code = "queue_full"


class RedisUnavailable(Unavailable):
    """Redis does not answer, or is full."""

    code = "redis_unavailable"


class TenantLimit(Unavailable):
    """The tenant has taken what it may for now. Nothing was stored, and nothing counted."""


class RateLimited(TenantLimit):
    """It submits faster than it may."""

    code = "rate_limited"


class TooManyJobs(TenantLimit):
    """It has as many open jobs as it may."""

    code = "too_many_jobs"


class LogRefused(LasteventError):
    """The log did not take what was offered; what it holds is unchanged."""


class Superseded(LogRefused):
    """The job's record names another owner, or none: this attempt must stop (protocol P5)."""

    code = "superseded"


class AlreadyEnded(LogRefused):
    """The job has its terminal event; nothing may follow it (protocol 3)."""

    code = "ended"


class LogErased(LogRefused):
    """The job was deleted, or has expired: there is nothing left to write to."""

    code = "gone"


class LogBehind(LogRefused):
    """The log lost a tail that it had taken: a restart or failover forgot it."""

    code = "behind"


class ConfigurationError(LasteventError):
    """A setting, key, file or port is not as it must be. The message says which, and what to do."""

    code = "configuration"


class GenerationFailed(LasteventError):
    """An attempt failed for a reason of protocol 4.1. The text so far stands.

    `retry_after_s` is what the provider asked to wait before the next call, in seconds; None where it said nothing.
    """

    def __init__(
        self, code: ErrorCode, message: str, *, retryable: bool | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code: ErrorCode = code  # type: ignore[misc]  # per instance: one class for the whole list
        self.retryable: bool = code in RETRYABLE_CODES if retryable is None else retryable  # type: ignore[misc]
        self.retry_after_s = retry_after_s


class DeadlinePassed(GenerationFailed):
    """One of the job's `timeouts` cut the attempt. It ends the job (protocol 2.1): no other attempt follows."""

    def __init__(self, message: str) -> None:
        super().__init__("timeout", message)


class UpstreamOver(GenerationFailed):
    """The response that went on at the provider's failed or was cancelled there. A further attempt starts anew."""


class UpstreamExpired(UpstreamOver):
    """The provider does not hand out the response any more that was to be read on. What it said so far stands nowhere else:
    the next attempt starts anew, with `reset: true` where text was kept."""
