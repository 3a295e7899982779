"""web/problems.py: the one table from error to status (protocol 2)."""

import json
from collections.abc import Iterator

import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request

from shared.errors import (
    BadCursor,
    FieldProblem,
    GenerationFailed,
    IdempotencyConflict,
    InvalidRequest,
    JobNotFound,
    LasteventError,
    LogRefused,
    QueueFull,
    RateLimited,
    RedisUnavailable,
    TooManyJobs,
    Unavailable,
)
from web.problems import (
    STATUS_OF,
    BodyTooLarge,
    CrossOrigin,
    Forbidden,
    NothingToKill,
    Unauthorized,
    from_error,
    on_bug,
    on_http_exception,
    on_redis_away,
)

REQUEST = Request({"type": "http", "method": "PUT", "path": "/v1/jobs", "headers": [], "query_string": b""})


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("no"), 400, "invalid_request"),
        (BadCursor("no"), 400, "bad_cursor"),
        (Unauthorized("who?"), 401, "unauthorized"),
        (Forbidden("not this"), 403, "forbidden"),
        (JobNotFound("job_x"), 404, "job_not_found"),
        (IdempotencyConflict(), 409, "idempotency_conflict"),
        (CrossOrigin("no"), 403, "cross_origin"),
        (NothingToKill("no"), 409, "nothing_to_kill"),
        (BodyTooLarge("no"), 413, "body_too_large"),
        (RateLimited("later"), 429, "rate_limited"),
        (TooManyJobs("later"), 429, "too_many_jobs"),
        (Unavailable("later"), 503, "unavailable"),
        (QueueFull("later"), 503, "queue_full"),
        (RedisUnavailable("later"), 503, "redis_unavailable"),
        (LogRefused("a bug of ours"), 500, "internal"),
    ],
)
def test_each_error_has_its_status_and_slug(error: LasteventError, status: int, code: str) -> None:
    answer = from_error(error)
    body = json.loads(bytes(answer.body))
    assert answer.media_type == "application/problem+json"
    assert (answer.status_code, body["status"], body["code"]) == (status, status, code)
    assert body["detail"] == str(error)
    assert body["title"] != "Error"


def test_fields_are_named() -> None:
    answer = from_error(InvalidRequest("no", (FieldProblem("messages[0].role", "must be one of …"),)))
    assert json.loads(bytes(answer.body))["errors"] == [{"field": "messages[0].role", "message": "must be one of …"}]


def test_what_passes_says_when_to_come_again() -> None:
    assert from_error(Unavailable("later", retry_after_s=7)).headers["retry-after"] == "7"
    assert from_error(RateLimited("later", retry_after_s=8)).headers["retry-after"] == "8"
    assert "retry-after" not in from_error(JobNotFound("x")).headers


async def test_errors_that_are_not_ours() -> None:
    missing = await on_http_exception(REQUEST, HTTPException(405, headers={"Allow": "GET"}))
    assert (missing.status_code, missing.headers["allow"]) == (405, "GET")
    away = await on_redis_away(REQUEST, OSError("password in here"))
    assert (away.status_code, b"password" in bytes(away.body)) == (503, False)
    bug = await on_bug(REQUEST, ValueError("password in here"))
    assert (bug.status_code, b"password" in bytes(bug.body)) == (500, False)


def _all_errors(root: type[LasteventError]) -> Iterator[type[LasteventError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _all_errors(kind)


def test_every_error_that_a_caller_can_meet_is_in_the_table() -> None:
    inside = (LogRefused, GenerationFailed)
    for kind in _all_errors(LasteventError):
        if kind.__module__.startswith(("shared.", "web.")) and not issubclass(kind, inside) and kind.code != "configuration":
            assert any(base in STATUS_OF for base in kind.__mro__), kind
