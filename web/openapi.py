"""`GET /openapi.json`: the calls of protocol 2, with schemas taken from the types that serve them."""

from functools import cache
from importlib.metadata import version
from typing import Any, Final, get_args

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from shared.events import AnyEvent
from shared.job import Job, JobRequest, Status, TokenRequest
from shared.job_store import WorkerInfo
from shared.operations import Operations

_REF: Final = "#/components/schemas/{name}"

JSON = dict[str, Any]

_READABLE_BY_TOKEN: Final[list[JSON]] = [{"bearer": []}, {"header": []}, {"token": []}]


async def openapi(_request: Request) -> Response:
    return Response(_document(), media_type="application/json")


@cache
def _document() -> bytes:
    return msgspec.json.encode(
        {
            "openapi": "3.1.0",
            "info": {
                "title": "Lastevent",
                "version": version("lastevent"),
                "description": "Submit, stream, drop, resume, cancel: background generation for every LLM. "
                "The stream itself is described in docs/PROTOCOL.md.",
            },
            # Only where the server has keys, and never for /healthz and /readyz.
            "security": [{"bearer": []}, {"header": []}],
            "paths": _paths(),
            "components": {"schemas": _schemas(), "securitySchemes": _security_schemes()},
        }
    )


def _security_schemes() -> JSON:
    return {
        "bearer": {"type": "http", "scheme": "bearer", "description": "A key, le_…"},
        "header": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "The same"},
        "token": {
            "type": "apiKey",
            "in": "query",
            "name": "token",
            "description": "A stream token, lt_…, for this one job; a Job's events_url carries one",
        },
    }


def _schemas() -> JSON:
    request = JobRequest.model_json_schema(ref_template=_REF.replace("{name}", "{model}"))
    parts = request.pop("$defs", {})
    _, components = msgspec.json.schema_components([Job, WorkerInfo, Operations, *get_args(AnyEvent)], ref_template=_REF)
    problem = {
        "type": "object",
        "required": ["type", "title", "status", "detail", "code"],
        "properties": {
            "type": {"type": "string"},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "code": {"type": "string"},
            "request_id": {"type": "string"},
            "errors": {
                "type": "array",
                "items": {"type": "object", "properties": {"field": {"type": "string"}, "message": {"type": "string"}}},
            },
        },
    }
    token = TokenRequest.model_json_schema()
    return {**components, **parts, "JobRequest": request, "TokenRequest": token, "Problem": problem}


def _paths() -> JSON:
    return {**_all_jobs(), **_one_job(), **_deployment()}


def _all_jobs() -> JSON:
    return {
        "/v1/jobs": {
            "post": {
                "summary": "Submit a job; with Accept: text/event-stream, submit and stream",
                "parameters": [
                    _header("Idempotency-Key", "The same key with the same body answers with the first call's job"),
                    _header("X-Request-ID", "What the call is known by in logs, answers and at the provider; else one is made"),
                ],
                "requestBody": {"required": True, "content": {"application/json": {"schema": _ref("JobRequest")}}},
                "responses": {
                    "202": _json("Accepted", _ref("Job")),
                    "200": _events("The job's event stream from its first event"),
                    **_problems(400, 401, 409, 413, 415, 429, 503),
                },
            },
            "get": {
                "summary": "List jobs, newest first",
                "parameters": [
                    _query("status", {"enum": list(get_args(Status))}),
                    _query("limit", {"type": "integer", "minimum": 1, "maximum": 100}),
                    _query("after", {"type": "string"}),
                ],
                "responses": {
                    "200": _json("A page", _list_of("Job", next={"type": ["string", "null"]})),
                    **_problems(400, 401, 503),
                },
            },
        },
    }


def _one_job() -> JSON:
    job_id = {"name": "job_id", "in": "path", "required": True, "schema": {"type": "string"}}
    return {
        "/v1/jobs/{job_id}": {
            "parameters": [job_id],
            "get": {
                "summary": "The job as it stands",
                "security": _READABLE_BY_TOKEN,
                "responses": {"200": _json("The job", _ref("Job")), **_problems(401, 403, 404, 503)},
            },
            "delete": {
                "summary": "Cancel it if it is open, and erase everything of it",
                "responses": {"204": {"description": "Erased"}, **_problems(401, 403, 404, 503)},
            },
        },
        "/v1/jobs/{job_id}/events": {
            "parameters": [job_id],
            "get": {
                "summary": "Follow the event log from a cursor",
                "security": _READABLE_BY_TOKEN,
                "parameters": [
                    _header("Last-Event-ID", "The id of the last event taken in; none: from the first event"),
                    _query("last_event_id", {"type": "string"}),
                    _query("merge", {"enum": ["0", "1"]}),
                    _query("heartbeat", {"enum": ["comment", "event"]}),
                ],
                "responses": {
                    "200": _events("The events after the cursor, then live ones"),
                    "204": {"description": "The cursor is the terminal event's id: there is nothing more"},
                    **_problems(400, 401, 403, 404),
                },
            },
        },
        "/v1/jobs/{job_id}/cancel": {
            "parameters": [job_id],
            "post": {
                "summary": "Stop it; text and usage so far are kept",
                "responses": {
                    "200": _json("It has ended", _ref("Job")),
                    "202": _json("Its worker was told", _ref("Job")),
                    **_problems(401, 403, 404, 503),
                },
            },
        },
        "/v1/jobs/{job_id}/token": {"parameters": [job_id], "post": _token()},
    }


def _token() -> JSON:
    properties = {"token": {"type": "string"}, "expires_at": {"type": "integer"}, "events_url": {"type": "string"}}
    return {
        "summary": "A signed token with which a browser reads this job, and does nothing else",
        "requestBody": {"content": {"application/json": {"schema": _ref("TokenRequest")}}},
        "responses": {
            "201": _json("The token, when it ends (Unix seconds), and the URL for an EventSource",
                         {"type": "object", "properties": properties, "required": list(properties)}),
            **_problems(400, 401, 403, 404, 415, 503),
        },
    }  # fmt: skip


def _deployment() -> JSON:
    yes, anybody = {"200": _json("Yes", {"type": "object"}), **_problems(503)}, list[JSON]()
    models = {"200": _json("Models", {"type": "object"}), **_problems(401, 403)}
    workers = {"200": _json("Workers", _list_of("WorkerInfo")), **_problems(401, 403, 503)}
    operations = {"200": _json("Operations", _ref("Operations")), **_problems(401, 403, 503)}
    return {
        "/v1/models": {"get": {"summary": "Models", "responses": models}},
        "/v1/workers": {"get": {"summary": "Live workers", "responses": workers}},
        "/v1/operations": {
            "get": {"summary": "How full the lanes are, and the last 15 minutes in steps of 15 s", "responses": operations}
        },
        "/healthz": {"get": {"summary": "Route here?", "security": anybody, "responses": yes}},
        "/readyz": {"get": {"summary": "All up?", "security": anybody, "responses": yes}},
    }


def _ref(name: str) -> JSON:
    return {"$ref": _REF.replace("{name}", name)}


def _list_of(name: str, **more: JSON) -> JSON:
    return {"type": "object", "properties": {"data": {"type": "array", "items": _ref(name)}, **more}}


def _json(description: str, schema: JSON) -> JSON:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _events(description: str) -> JSON:
    return {"description": description, "content": {"text/event-stream": {"schema": {"type": "string"}}}}


def _problems(*statuses: int) -> JSON:
    content = {"application/problem+json": {"schema": _ref("Problem")}}
    return {str(status): {"description": "RFC 9457 problem", "content": content} for status in statuses}


def _header(name: str, description: str) -> JSON:
    return {"name": name, "in": "header", "description": description, "schema": {"type": "string"}}


def _query(name: str, schema: JSON) -> JSON:
    return {"name": name, "in": "query", "schema": schema}
