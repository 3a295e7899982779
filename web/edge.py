"""A request as it comes in and as it leaves: the id that it is known by from here to the provider, and its line in the log."""

import secrets
import time
from contextvars import ContextVar
from typing import Any, Final

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from web.lent import at_departure

log = structlog.get_logger()

HEADER: Final = "X-Request-ID"
_RAW_HEADER: Final = HEADER.lower().encode()
_MOST: Final = 128
"""Characters of an id that a caller may give."""
_PATH_MOST: Final = 200

_NOTES: Final = "lastevent.notes"
_current: ContextVar[str] = ContextVar("request_id", default="")


def request_id() -> str:
    """That of the request which is served in this task; empty outside of one."""
    return _current.get()


def notes(scope: Scope) -> dict[str, Any]:
    """What else the request's line says; fields without a value are left out."""
    noted: dict[str, Any] = scope.setdefault(_NOTES, {})
    return noted


class Edge:
    """Outermost of ours, pure ASGI. An id is taken from the caller if it is one, else made; answers repeat it.

    A line shows no query, which may hold a token, and no header. What concerns jobs is said at `info`, an event stream once it
    has ended; what is only looked at, by balancers and pages, at `debug`.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        # Never reset: what answers a fault of ours stands further out, and a request has a task, and so a context, to itself.
        own_id = _given(scope) or secrets.token_hex(16)
        _current.set(own_id)
        structlog.contextvars.bind_contextvars(request_id=own_id)
        begun, status = time.monotonic(), 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message.get("headers", ()), (_RAW_HEADER, own_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        finally:
            line = _Line(scope, status, begun)
            if not at_departure(scope, line.say):
                line.say()


def _given(scope: Scope) -> str | None:
    """The caller's id, if it is 1 to 128 visible characters of ASCII."""
    for name, value in scope["headers"]:
        if name == _RAW_HEADER:
            sane = 1 <= len(value) <= _MOST and all(0x21 <= byte <= 0x7E for byte in value)
            return value.decode() if sane else None
    return None


class _Line:
    """What is said of a request once it is over; by then its scope may be empty."""

    __slots__ = ("_begun", "_job_id", "_method", "_noted", "_path", "_status")

    def __init__(self, scope: Scope, status: int, begun: float) -> None:
        self._method: str = scope["method"]
        self._path: str = scope["path"]
        self._job_id: str | None = scope.get("path_params", {}).get("job_id")
        self._noted = notes(scope)
        self._status = status
        self._begun = begun

    def say(self) -> None:
        fields = {"job": self._job_id, **self._noted}
        say = log.info if self._path.startswith("/v1/jobs") else log.debug
        say(
            "request", method=self._method, path=self._path[:_PATH_MOST], status=self._status,
            ms=round((time.monotonic() - self._begun) * 1000, 1),
            **{name: value for name, value in fields.items() if value is not None},
        )  # fmt: skip
