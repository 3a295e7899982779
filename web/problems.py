"""The one table from error to status, and how an error looks on the wire: RFC 9457 problem+json (protocol 2)."""

from typing import Final

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import (
    BadCursor,
    IdempotencyConflict,
    InvalidRequest,
    JobNotFound,
    LasteventError,
    QueueFull,
    RateLimited,
    RedisUnavailable,
    TooManyJobs,
    Unavailable,
)
from web.edge import HEADER, request_id


class BodyTooLarge(LasteventError):
    """The request's body is over the limit (protocol 2.1)."""

    code = "body_too_large"


class UnsupportedMediaType(LasteventError):
    """The body is not sent as JSON."""

    code = "unsupported_media_type"


class Unauthorized(LasteventError):
    """The call shows no key, or none of this server's."""

    code = "unauthorized"


class Forbidden(LasteventError):
    """The stream token that the call shows is ours, and is not for this."""

    code = "forbidden"


class CrossOrigin(LasteventError):
    """A page of another site asks for what only our own page may."""

    code = "cross_origin"


class NothingToKill(LasteventError):
    """No worker of this machine runs the job now."""

    code = "nothing_to_kill"


STATUS_OF: Final[dict[type[LasteventError], int]] = {
    InvalidRequest: 400,
    BadCursor: 400,
    Unauthorized: 401,
    Forbidden: 403,
    CrossOrigin: 403,
    JobNotFound: 404,
    IdempotencyConflict: 409,
    NothingToKill: 409,
    BodyTooLarge: 413,
    UnsupportedMediaType: 415,
    RateLimited: 429,
    TooManyJobs: 429,
    Unavailable: 503,
    QueueFull: 503,
    RedisUnavailable: 503,
}

_TITLES: Final = {
    400: "The request is not valid",
    401: "A key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "The body is too large",
    415: "Not a media type that is understood here",
    421: "Not a name of this server",
    429: "Too much for now",
    500: "A fault of the server",
    503: "Not available now",
}
_CODES: Final = {404: "not_found", 405: "method_not_allowed"}


def problem(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **more: object) -> Response:
    body = {
        "type": f"urn:lastevent:problem:{code}",
        "title": _TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        "code": code,
        **({"request_id": request_id()} if request_id() else {}),
        **more,
    }
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


def from_error(error: LasteventError) -> Response:
    """The answer for an error of ours."""
    status = next((STATUS_OF[kind] for kind in type(error).__mro__ if kind in STATUS_OF), 500)
    headers = None
    if isinstance(error, Unavailable):
        headers = {"Retry-After": str(error.retry_after_s)}
    elif isinstance(error, Unauthorized):
        headers = {"WWW-Authenticate": "Bearer"}
    if isinstance(error, InvalidRequest) and error.problems:
        errors = [{"field": p.field, "message": p.message} for p in error.problems]
        return problem(status, error.code, str(error), headers, errors=errors)
    return problem(status, error.code, str(error), headers)


async def on_lastevent_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, LasteventError), "registered for this class"
    return from_error(error)


async def on_redis_away(_request: Request, _error: Exception) -> Response:
    return from_error(RedisUnavailable("Redis is away. Nothing was lost; try again."))


async def on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for this class"
    detail = f"{request.method} {request.url.path}: {error.detail}."
    headers = dict(error.headers) if error.headers else None
    return problem(error.status_code, _CODES.get(error.status_code, "http_error"), detail, headers)


async def on_bug(_request: Request, error: Exception) -> Response:
    # Answered outside of all middleware, which puts the id on every other answer.
    headers = {HEADER: request_id()}
    return problem(500, "internal", f"The server failed: {type(error).__name__}. Its log has the details.", headers)
