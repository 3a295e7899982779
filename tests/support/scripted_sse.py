"""A server for readers to be tested on: real sockets, and every answer as the test scripted it.

A `ScriptedJob` is a log that the test appends to; its event stream follows the cursor rules of protocol 4. `job.answers`
come first, one for each connection, so that a test can play any server, well-behaved or not, on the wire itself. The same
server serves the page under its own policy. With a `key` it answers calls without it as a server with keys does.
"""

import asyncio
import json
import mimetypes
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import uvicorn

from tests.support.waiting import wait_until
from web.assets import CONTENT_POLICY

PAGE = Path(__file__).parents[2] / "web" / "page"
TERMINAL = {"done": "done", "error": "failed", "cancelled": "cancelled"}

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def frame(data: dict[str, Any], event_id: str | None = None) -> bytes:
    """One SSE frame as the web tier writes it."""
    head = f"id: {event_id}\n" if event_id else ""
    return f"{head}data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


@dataclass
class Answer:
    """One response. `then`: `end` it cleanly, `cut` the connection without the last chunk, or `hold` it open."""

    chunks: list[bytes] = field(default_factory=list)
    status: int = 200
    content_type: str = "text/event-stream"
    then: str = "end"


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def cursor(self) -> str | None:
        return self.headers.get("last-event-id") or self.query.get("last_event_id")


class Connection:
    """What one open event stream waits on: the log, the test, its reader."""

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self.gone = False
        self.cut = False


class ScriptedJob:
    def __init__(self, job_id: str, model: str, prompt: str) -> None:
        self.id, self.model, self.prompt = job_id, model, prompt
        self.token = 0  # the newest that a reader may come with, on a server with a key
        self.needs_token = False
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.answers: deque[Answer] = deque()
        self.connections: set[Connection] = set()
        self.retry_ms = 20
        self.cancel_asked = False
        self.created_at = time.time()
        self.add("0-1", "queued", job_id=job_id, model=model, created_at=self.created_at)

    def add(self, event_id: str, kind: str, **data: Any) -> None:
        """Appends an event; live readers get it at once."""
        self.log.append((event_id, {"type": kind, **data}))
        self._wake()

    def start(self, attempt: int = 1, reason: str = "first", *, reset: bool = False) -> None:
        self.add(
            f"{attempt}-0", "started", attempt=attempt, model=self.model, worker="w1", reason=reason, reset=reset,
            after=self.log[-1][0],
        )  # fmt: skip

    def say(self, *texts: str, kind: str = "token") -> None:
        for text in texts:
            attempt, seq = self.log[-1][0].split("-")
            self.add(f"{attempt}-{int(seq) + 1}", kind, text=text)

    def end(self, kind: str = "done", **data: Any) -> None:
        attempt, seq = self.log[-1][0].split("-")
        usage = {"input_tokens": 3, "output_tokens": 4, "estimated": False}
        timing = {"queue_s": 0.01, "ttft_s": 0.25, "total_s": 1.0, "tokens_per_s": 26.5}
        self.add(f"{attempt}-{int(seq) + 1}", kind, **{"usage": usage, "timing": timing, **data})

    def cut(self) -> None:
        """Breaks every open connection of this job."""
        for connection in self.connections:
            connection.cut = True
        self._wake()

    def _wake(self) -> None:
        for connection in self.connections:
            connection.wake.set()

    @property
    def events_url(self) -> str:
        return f"/v1/jobs/{self.id}/events" + (f"?token={self.token}" if self.needs_token else "")

    def snapshot(self) -> dict[str, Any]:
        text, status, last = "", "queued", self.log[-1][1]
        for _, data in self.log:
            if data["type"] == "started":
                status, text = "running", "" if data["reset"] else text
            text += data["text"] if data["type"] == "token" else ""
        starts = [d for _, d in self.log if d["type"] == "started"]
        return {
            "id": self.id, "object": "job", "status": TERMINAL.get(last["type"], status), "model": self.model,
            "created_at": self.created_at, "started_at": self.created_at + 0.01 if starts else None,
            "finished_at": self.created_at + 1.0 if last["type"] in TERMINAL else None, "text": text,
            "reasoning": "", "tool_calls": [], "finish_reason": last.get("finish_reason"),
            "usage": last.get("usage", {"input_tokens": 0, "output_tokens": 0, "estimated": False}),
            "timing": last.get("timing", {"queue_s": None, "ttft_s": None, "total_s": None, "tokens_per_s": None}),
            "attempts": [
                {"number": d["attempt"], "model": d["model"], "worker": d["worker"], "reason": d["reason"]} for d in starts
            ],
            "error": {k: last[k] for k in ("code", "message", "retryable")} if last["type"] == "error" else None,
            "last_event_id": self.log[-1][0], "metadata": {"prompt": self.prompt} if self.prompt else {},
            "events_url": self.events_url,
        }  # fmt: skip


class ScriptedServer:
    """`url`, what it has `seen`, its `jobs`. `on_submit` scripts the job that a POST makes; `problem` refuses it instead.
    `key` is what it wants of everybody; `operations` and `chaos` are what those calls answer, if there are any."""

    def __init__(self) -> None:
        self.url = ""
        self.seen: list[Seen] = []
        self.jobs: dict[str, ScriptedJob] = {}
        self.on_submit: Callable[[ScriptedJob], None] = lambda job: None
        self.on_cancel: Callable[[ScriptedJob], None] = lambda job: job.end("cancelled", reason="user", partial=True)
        self.problem: dict[str, Any] | None = None
        self.models = ["local/smollm2-135m-instruct", "openai/gpt-4o-mini"]
        self.missing_keys: dict[str, str] = {}
        self.key: str | None = None
        self.operations: dict[str, Any] | None = None
        self.chaos: dict[str, Any] | None = None

    def job(self, model: str = "local/smollm2-135m-instruct", prompt: str = "") -> ScriptedJob:
        job = ScriptedJob("job_" + chr(ord("a") + len(self.jobs)) * 26, model, prompt)
        job.needs_token = self.key is not None
        self.jobs[job.id] = job
        return job

    def cursors(self) -> list[str | None]:
        """The cursor of each connection to an event stream, in order."""
        return [seen.cursor for seen in self.seen if seen.path.endswith("/events")]

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        seen = await _read_request(scope, receive)
        self.seen.append(seen)
        parts = seen.path.strip("/").split("/")
        if parts[0] == "v1" and not self._admits(seen, parts):
            await _problem(send, 403 if "token" in seen.query else 401, "unauthorized", "a key is wanted")
        elif parts[:2] == ["v1", "jobs"] and len(parts) > 2:
            await self._job_call(parts[2], parts[3] if len(parts) > 3 else "", seen, receive, send)
        elif seen.path == "/v1/jobs" and seen.method == "GET":
            await self._listing(seen, send)
        elif seen.path == "/v1/jobs":
            await self._submit(seen, send)
        elif seen.path == "/v1/models":
            await _json(send, 200, {"object": "list", "data": [self._model(model) for model in self.models]})
        elif seen.path == "/v1/operations" and self.operations is not None:
            await _json(send, 200, self.operations)
        elif seen.path == "/v1/chaos/kill-worker" and self.chaos is not None:
            await _json(send, 202, self.chaos)
        elif parts[0] == "v1":
            await _problem(send, 404, "not_found", f"no call {seen.path}")
        else:
            await _page_file(send, seen.path.strip("/") or "index.html", chaos=self.chaos is not None)

    def _admits(self, seen: Seen, parts: list[str]) -> bool:
        if self.key is None or seen.headers.get("authorization") == f"Bearer {self.key}":
            return True
        job = self.jobs.get(parts[2]) if parts[3:] == ["events"] else None
        return job is not None and seen.query.get("token") == str(job.token)

    def _model(self, model: str) -> dict[str, Any]:
        provider = model.partition("/")[0]
        return {"id": model, "object": "model", "owned_by": provider, "missing_key": self.missing_keys.get(provider)}

    async def _listing(self, seen: Seen, send: Send) -> None:
        """Newest first, as protocol 6 has it."""
        jobs = [job.snapshot() for job in reversed(self.jobs.values())]
        found = [job for job in jobs if seen.query.get("status") in (None, job["status"])]
        ids = [job["id"] for job in found]
        start = ids.index(seen.query["after"]) + 1 if "after" in seen.query else 0
        end = start + int(seen.query["limit"])
        page = found[start:end]
        await _json(send, 200, {"object": "list", "data": page, "next": page[-1]["id"] if found[end:] else None})

    async def _submit(self, seen: Seen, send: Send) -> None:
        if self.problem is not None:
            await _json(send, self.problem["status"], self.problem, "application/problem+json")
            return
        request = json.loads(seen.body)
        job = self.job(request["model"], request.get("metadata", {}).get("prompt", ""))
        self.on_submit(job)
        await _json(send, 202, job.snapshot())

    async def _job_call(self, job_id: str, call: str, seen: Seen, receive: Receive, send: Send) -> None:
        job = self.jobs.get(job_id)
        if job is None:
            await _problem(send, 404, "job_not_found", f"no job {job_id}")
        elif seen.method == "DELETE":
            del self.jobs[job_id]
            await _start(send, 204, "text/plain")
            await send({"type": "http.response.body", "body": b""})
        elif call == "events":
            await _events(job, seen, receive, send)
        elif call == "cancel":
            job.cancel_asked = True
            if job.log[-1][1]["type"] not in TERMINAL:
                self.on_cancel(job)
            await _json(send, 202, job.snapshot())
        else:
            await _json(send, 200, job.snapshot())


async def _events(job: ScriptedJob, seen: Seen, receive: Receive, send: Send) -> None:
    connection = Connection()
    job.connections.add(connection)
    watch = asyncio.create_task(_watch(connection, receive))
    try:
        if job.answers:
            await _play(job.answers.popleft(), connection, send)
        else:
            await _follow(job, seen.cursor or "0-0", connection, send)
    finally:
        watch.cancel()
        job.connections.discard(connection)


async def _play(answer: Answer, connection: Connection, send: Send) -> None:
    await _start(send, answer.status, answer.content_type)
    for chunk in answer.chunks:
        await send({"type": "http.response.body", "body": chunk, "more_body": True})
    while answer.then == "hold" and not (connection.gone or connection.cut):
        connection.wake.clear()
        await connection.wake.wait()
    if answer.then == "cut" or connection.cut:
        raise ConnectionAbortedError("scripted")  # uvicorn closes the socket without the last chunk
    await send({"type": "http.response.body", "body": b""})


async def _follow(job: ScriptedJob, cursor: str, connection: Connection, send: Send) -> None:
    """The log from the cursor on, then live (protocol 4.1, 4.2, 4.4, 4.5)."""
    ids = [event_id for event_id, _ in job.log]
    if cursor == ids[-1] and job.log[-1][1]["type"] in TERMINAL:
        await _start(send, 204, "text/event-stream")
        await send({"type": "http.response.body", "body": b""})
        return
    await _start(send, 200, "text/event-stream")
    opening = f"retry: {job.retry_ms}\n\n".encode()
    if cursor != "0-0" and cursor not in ids:
        cursor, opening = "0-0", opening + frame({"type": "rewind"})
    await send({"type": "http.response.body", "body": opening, "more_body": True})
    position = ids.index(cursor) + 1 if cursor != "0-0" else 0
    while not (connection.gone or connection.cut):
        for event_id, data in job.log[position:]:
            await send({"type": "http.response.body", "body": frame(data, event_id), "more_body": True})
        position = len(job.log)
        if job.log[-1][1]["type"] in TERMINAL:
            await send({"type": "http.response.body", "body": b""})
            return
        connection.wake.clear()
        await connection.wake.wait()
    if connection.cut:
        raise ConnectionAbortedError("scripted")


async def _watch(connection: Connection, receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    connection.gone = True
    connection.wake.set()


async def _read_request(scope: dict[str, Any], receive: Receive) -> Seen:
    body, more = b"", scope["method"] == "POST"
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    query = {name: values[0] for name, values in parse_qs(scope["query_string"].decode()).items()}
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    return Seen(scope["method"], scope["path"], query, headers, body)


async def _start(send: Send, status: int, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode()), (b"content-security-policy", CONTENT_POLICY.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _json(send: Send, status: int, data: object, content_type: str = "application/json") -> None:
    await _start(send, status, content_type)
    await send({"type": "http.response.body", "body": json.dumps(data).encode()})


async def _problem(send: Send, status: int, code: str, detail: str) -> None:
    problem = {"title": code, "status": status, "detail": detail, "code": code}
    await _json(send, status, problem, "application/problem+json")


async def _page_file(send: Send, name: str, *, chaos: bool) -> None:
    file = PAGE / name
    content = file.read_bytes() if file.is_file() else b"not found"
    await _start(send, 200 if file.is_file() else 404, mimetypes.guess_type(name)[0] or "text/plain")
    await send(
        {"type": "http.response.body", "body": content.replace(b'data-chaos="no"', b'data-chaos="yes"') if chaos else content}
    )


@asynccontextmanager
async def scripted_server() -> AsyncIterator[ScriptedServer]:
    """A running server on a port of its own."""
    script = ScriptedServer()
    config = uvicorn.Config(
        script, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none", timeout_graceful_shutdown=1
    )
    server, stop = uvicorn.Server(config), asyncio.Event()
    server.main_loop = stop.wait  # type: ignore[method-assign,assignment]  # uvicorn's own looks every 0.1 s
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]  # those are pytest's
    running = asyncio.create_task(server.serve())
    try:
        await wait_until(lambda: server.started or running.done(), message="uvicorn is up")
        script.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        yield script
    finally:
        for job in script.jobs.values():
            job.cut()
        stop.set()
        await running
