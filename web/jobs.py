"""The job calls: submit, look, list, cancel, delete (protocol 2)."""

from typing import get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import FieldProblem, InvalidRequest, JobNotFound, Unavailable
from shared.ids import QUEUED, START
from shared.job import Job, JobRequest, Status, parse_request
from shared.job_queue import Submitted
from shared.job_store import PAGE_DEFAULT, PAGE_MOST
from shared.models import check_request
from web.context import context_of
from web.problems import BodyTooLarge, UnsupportedMediaType
from web.stream import Options, open_stream

_KEY_MOST = 255
"""Characters of an Idempotency-Key."""


async def submit(request: Request) -> Response:
    """`POST /v1/jobs`: 202 and the Job, or the job's event stream when the caller accepts one."""
    context = context_of(request)
    if context.hub.draining:
        raise Unavailable("This server is stopping; another takes the job.", retry_after_s=1)
    check_media_type(request)
    body = await read_body(request, context.settings.body_limit)
    job_request = parse_request(body)
    model = check_request(job_request, context.settings)
    key = _idempotency_key(request)
    options = Options.of(request) if _accepts_events(request) else None  # a wrong one submits nothing
    submitted = await context.queue.submit(job_request, model, idempotency_key=key)
    if not submitted.replayed:
        context.metrics.submits.labels(model.provider).inc()
    headers = {"Location": f"/v1/jobs/{submitted.job_id}"}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    if options is not None:
        return await open_stream(request, submitted.job_id, START, options, headers)
    job = await context.store.job(submitted.job_id) if submitted.replayed else _as_queued(submitted, job_request)
    return json_response(job, 202, headers)


async def get(request: Request) -> Response:
    """`GET /v1/jobs/{id}`: the Job as it stands."""
    return json_response(await context_of(request).store.job(request.path_params["job_id"]))


async def listing(request: Request) -> Response:
    """`GET /v1/jobs`: newest first, a page."""
    status, limit, after = _listing_query(request)
    try:
        page = await context_of(request).store.page(status=status, limit=limit, after=after)
    except JobNotFound:
        raise _bad_query("after", "must be the `next` of the page before, and its job must still exist") from None
    return json_response({"object": "list", "data": page.jobs, "next": page.next})


async def cancel(request: Request) -> Response:
    """`POST /v1/jobs/{id}/cancel`: 200 when the job has ended, 202 while its worker is still to stop."""
    context, job_id = context_of(request), request.path_params["job_id"]
    answer = await context.queue.cancel(job_id)
    return json_response(await context.store.job(job_id), 202 if answer == "asked" else 200)


async def delete(request: Request) -> Response:
    """`DELETE /v1/jobs/{id}`."""
    await context_of(request).queue.erase(request.path_params["job_id"])
    return Response(status_code=204)


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body. Raises BodyTooLarge as soon as that is known."""
    announced = request.headers.get("content-length", "")
    too_large = BodyTooLarge(f"The body is larger than {limit:,} bytes.")
    if announced.isdigit() and int(announced) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def _as_queued(submitted: Submitted, request: JobRequest) -> Job:
    """The Job as the submit stored it; reading it back would cost what the answer can do without."""
    return Job(
        id=submitted.job_id,
        status="queued",
        model=request.model,
        created_at=submitted.created_at,
        last_event_id=str(QUEUED),
        metadata=request.metadata,
        events_url=f"/v1/jobs/{submitted.job_id}/events",
    )


def check_media_type(request: Request) -> None:
    """JSON says so. A page of another site can send forms and plain text here without asking, but not this."""
    sent = request.headers.get("content-type", "")
    if sent.partition(";")[0].strip().lower() != "application/json":
        raise UnsupportedMediaType(
            f"The body must be JSON, with Content-Type: application/json; it came as {sent or 'nothing'!r}."
        )


def json_response(value: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(value), status, headers, media_type="application/json")


def _accepts_events(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get("idempotency-key")
    if key is None:
        return None
    if not 1 <= len(key) <= _KEY_MOST:
        raise _bad_query("Idempotency-Key", f"must have 1 to {_KEY_MOST} characters")
    return key


def _listing_query(request: Request) -> tuple[Status | None, int, str | None]:
    query = request.query_params
    unknown = [name for name in query if name not in ("status", "limit", "after")]
    if unknown:
        raise _bad_query(unknown[0], "is not a parameter of this call; there are status, limit and after")
    status = query.get("status")
    if status is not None and status not in get_args(Status):
        raise _bad_query("status", f"must be one of {', '.join(get_args(Status))}")
    limit = query.get("limit", str(PAGE_DEFAULT))
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit) <= PAGE_MOST):
        raise _bad_query("limit", f"must be a number from 1 to {PAGE_MOST}")
    return status, int(limit), query.get("after")  # type: ignore[return-value]  # checked against get_args(Status)


def _bad_query(field: str, message: str) -> InvalidRequest:
    return InvalidRequest(f"{field} {message}.", (FieldProblem(field, message),))
