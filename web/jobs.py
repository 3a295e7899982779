"""The job calls: submit, look, list, cancel, delete, and a token for the stream (protocol 2)."""

from typing import get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import FieldProblem, InvalidRequest, JobNotFound, Unavailable
from shared.ids import QUEUED, START
from shared.job import Job, JobRequest, Status, TokenRequest, parse_body, parse_request
from shared.job_queue import Submitted
from shared.job_store import PAGE_DEFAULT, PAGE_MOST
from shared.models import check_request
from web.context import context_of, events_url, tenant_of
from web.edge import notes, request_id
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
    tenant = tenant_of(request)
    submitted = await context.queue.submit(job_request, model, tenant=tenant, idempotency_key=key, request_id=request_id())
    notes(request.scope).update(job=submitted.job_id, model=model.id, replayed=submitted.replayed or None)
    if not submitted.replayed:
        context.metrics.submits.labels(model.provider).inc()
    headers = {"Location": f"/v1/jobs/{submitted.job_id}"}
    if submitted.replayed:
        headers["Idempotency-Replayed"] = "true"
    if options is not None:
        return await open_stream(request, submitted.job_id, START, options, headers)
    job = await context.store.job(submitted.job_id, tenant) if submitted.replayed else _as_queued(submitted, job_request)
    return json_response(await _shown(request, job), 202, headers)


async def get(request: Request) -> Response:
    """`GET /v1/jobs/{id}`: the Job as it stands."""
    job = await context_of(request).store.job(request.path_params["job_id"], tenant_of(request))
    return json_response(await _shown(request, job))


async def listing(request: Request) -> Response:
    """`GET /v1/jobs`: newest first, a page."""
    status, limit, after = _listing_query(request)
    try:
        page = await context_of(request).store.page(tenant_of(request), status=status, limit=limit, after=after)
    except JobNotFound:
        raise _bad_query("after", "must be the `next` of the page before, and its job must still exist") from None
    return json_response({"object": "list", "data": [await _shown(request, job) for job in page.jobs], "next": page.next})


async def cancel(request: Request) -> Response:
    """`POST /v1/jobs/{id}/cancel`: 200 when the job has ended, 202 while its worker is still to stop."""
    context, job_id, tenant = context_of(request), request.path_params["job_id"], tenant_of(request)
    answer = await context.queue.cancel(job_id, tenant)
    context.metrics.cancels.labels(answer).inc()
    if answer == "ended":
        context.metrics.closed.labels("cancelled", "").inc()
    job = await context.store.job(job_id, tenant)
    return json_response(await _shown(request, job), 202 if answer == "asked" else 200)


async def delete(request: Request) -> Response:
    """`DELETE /v1/jobs/{id}`."""
    context = context_of(request)
    if await context.queue.erase(request.path_params["job_id"], tenant_of(request)) == "ended":
        context.metrics.closed.labels("erased", "").inc()
    return Response(status_code=204)


async def token(request: Request) -> Response:
    """`POST /v1/jobs/{id}/token`: what a browser reads this job with, without a key."""
    context, job_id, tenant = context_of(request), request.path_params["job_id"], tenant_of(request)
    life_s = await _token_life(request)
    await context.store.check(job_id, tenant)
    made = await context.tokens.make(job_id, tenant, life_s)
    url = f"/v1/jobs/{job_id}/events?token={made.text}"
    answer = {"token": made.text, "expires_at": made.expires_at, "events_url": url}
    return json_response(answer, 201, {"Cache-Control": "no-store"})


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


async def _shown(request: Request, job: Job) -> Job:
    """The Job as its caller gets it."""
    return msgspec.structs.replace(job, events_url=await events_url(request, job.id))


async def _token_life(request: Request) -> int | None:
    """Seconds, from the body that may be left out. Raises InvalidRequest."""
    context = context_of(request)
    body = await read_body(request, context.settings.body_limit)
    if not body:
        return None
    check_media_type(request)
    asked, most = parse_body(TokenRequest, body).expires_in, context.settings.token_ttl_s
    if asked is not None and asked > most:
        raise _bad_query("expires_in", f"must be at most {most} seconds, as this server is set up")
    return asked


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
