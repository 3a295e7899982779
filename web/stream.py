"""`GET /v1/jobs/{id}/events`: the cursor rules of protocol 4, and the response that a subscriber writes to."""

import asyncio
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Final

from sse_starlette import EventSourceResponse
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from shared.errors import FieldProblem, InvalidRequest, JobNotFound, RedisUnavailable
from shared.ids import START, EventId
from shared.redis_client import UNREACHABLE
from shared.settings import Settings
from web.context import Context, context_of, tenant_of
from web.edge import notes
from web.hub import Hub
from web.lent import DEPARTURES, PUT, SEND, TRANSPORT, lent
from web.sse import HEARTBEAT, HEARTBEAT_EVENT, REWIND, reconnect, retry_line
from web.subscriber import State, Subscriber

_HEADERS: Final = {"Cache-Control": "no-store, no-transform", "Vary": "Accept, Last-Event-ID"}


async def events(request: Request) -> Response:
    """Opens the event stream at the reader's cursor; 204 when it has everything already."""
    return await open_stream(request, request.path_params["job_id"], cursor_of(request), Options.of(request), {})


def cursor_of(request: Request) -> EventId:
    """`Last-Event-ID`, else `?last_event_id=`; the header wins. Raises BadCursor."""
    text = request.headers.get("last-event-id") or request.query_params.get("last_event_id")
    return EventId.parse(text) if text else START


async def open_stream(request: Request, job_id: str, cursor: EventId, options: "Options", headers: dict[str, str]) -> Response:
    """The answer for a reader at `cursor` (protocol 4, rules 1 to 3). Raises JobNotFound."""
    context = context_of(request)
    if context.hub.draining:
        return _sent_away(context, "draining", headers)
    try:
        place = await context.log.place(job_id, cursor, tenant_of(request))
    except UNREACHABLE:
        return _sent_away(context, "redis is away", headers)
    if place is None:
        raise JobNotFound(job_id)
    if place.ended and cursor == place.last:
        return Response(status_code=204, headers=headers)
    context.metrics.streams_opened.labels("no" if cursor == START else "yes").inc()
    rewind = cursor != START and not place.held
    start = START if rewind else cursor
    ended_at = place.last if place.ended else None
    return EventStream(context, job_id, start, options, rewind=rewind, ended_at=ended_at, headers=headers)


class Options:
    """What a reader may choose: `?merge=0`, `?heartbeat=event`."""

    def __init__(self, merge: bool, heartbeat: bytes) -> None:
        self.merge = merge
        self.heartbeat = heartbeat

    @classmethod
    def of(cls, request: Request) -> "Options":
        """Raises InvalidRequest."""
        merge, heartbeat = request.query_params.get("merge", "1"), request.query_params.get("heartbeat", "comment")
        if merge not in ("0", "1"):
            raise InvalidRequest("merge must be 0 or 1.", (FieldProblem("merge", "must be 0 or 1"),))
        if heartbeat not in ("comment", "event"):
            message = "must be comment or event"
            raise InvalidRequest(f"heartbeat {message}.", (FieldProblem("heartbeat", message),))
        return cls(merge == "1", HEARTBEAT_EVENT if heartbeat == "event" else HEARTBEAT)


class EventStream(EventSourceResponse):
    """sse-starlette's response, its headers and encoding, without the task group, ping and listener tasks that it starts for
    each connection: the hub writes, one timer beats, and this coroutine only waits for the reader to leave (decisions/0005)."""

    def __init__(
        self,
        context: Context,
        job_id: str,
        cursor: EventId,
        options: Options,
        *,
        rewind: bool,
        ended_at: EventId | None,
        headers: dict[str, str],
    ) -> None:
        super().__init__(content=_nothing(), headers={**_HEADERS, **headers}, sep="\n", ping=0)
        self.headers["content-type"] = "text/event-stream"  # UTF-8 by definition; protocol 4 names it without a charset
        self._context = context
        self._job_id = job_id
        self._cursor = cursor
        self._options = options
        self._rewind = rewind
        self._ended_at = ended_at

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        hub = self._context.hub
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        if scope["method"] == "HEAD":
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        subscriber = Subscriber(
            self._job_id,
            self._cursor,
            lent(scope, SEND) or send,  # the layers saw the response start, which is all that they look for
            heartbeat=self._options.heartbeat,
            merge=self._options.merge,
            now=asyncio.get_running_loop().time(),
            abort=_abort_of(scope),
            on_ready=hub.resume,
            put=lent(scope, PUT),
        )
        leave = partial(_leave, hub, subscriber, notes(scope))
        departures = lent(scope, DEPARTURES)
        stays = False
        try:
            await self._begin(subscriber)
            if departures is not None:
                departures.append(leave)
                stays = True
                return
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            if not stays:
                leave()

    async def _begin(self, subscriber: Subscriber) -> None:
        """Returns once the reader is live, or has its end."""
        settings, hub, now = self._context.settings, self._context.hub, asyncio.get_running_loop().time()
        opening = retry_line(settings.retry_min_ms, settings.retry_max_ms)
        hub.traffic.rewinds += self._rewind
        await subscriber.write_slowly(opening + REWIND if self._rewind else opening, now)
        try:
            await hub.follow(subscriber, ended_at=self._ended_at)
        except RedisUnavailable:
            if subscriber.state is not State.ENDED:
                hub.send_away(subscriber, "redis is away")


def _leave(hub: Hub, subscriber: Subscriber, line: dict[str, Any]) -> None:
    hub.leave(subscriber)
    line.update(frames=subscriber.frames, at=str(subscriber.cursor), why=subscriber.why)


def _abort_of(scope: Scope) -> Callable[[], None]:
    """Cuts the connection without a word: by its transport, or, on a server that lends none, by ending the request."""
    transport = lent(scope, TRANSPORT)
    if transport is not None:
        return transport.abort  # type: ignore[no-any-return]
    task = asyncio.current_task()
    assert task is not None, "a request is served in a task"

    def abort() -> None:
        task.cancel()

    return abort


def _sent_away(context: Context, reason: str, headers: dict[str, str]) -> Response:
    context.hub.traffic.reconnects[reason] += 1
    return come_back(context.settings, reason, headers)


def come_back(settings: Settings, reason: str, headers: dict[str, str] | None = None) -> Response:
    """200 and `reconnect`: any other status would be final for a native EventSource (protocol 4.3)."""
    body = retry_line(settings.retry_min_ms, settings.retry_max_ms) + reconnect(reason)
    # Not as media_type, to which Starlette adds a charset.
    all_headers = {**_HEADERS, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no", **(headers or {})}
    return Response(body, headers=all_headers)


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""  # what makes it an iterator; nobody iterates it
