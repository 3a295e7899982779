"""web/edge.py: each request has an id and a line."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import httpx2
import pytest
import structlog
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from shared.errors import Unavailable
from web import problems
from web.edge import Edge, notes, request_id
from web.lent import DEPARTURES


async def _tell(request: Request) -> Response:
    notes(request.scope).update(frames=3, why=None)
    return Response(request_id())


async def _refuse(_request: Request) -> Response:
    raise Unavailable("Not now.")


async def _fail(_request: Request) -> Response:
    raise RuntimeError("a fault")


APP = Starlette(
    routes=[
        Route("/v1/jobs/{job_id}", _tell),
        Route("/v1/jobs/{job_id}/refused", _refuse),
        Route("/v1/jobs/{job_id}/failed", _fail),
        Route("/healthz", _tell),
    ],
    exception_handlers={Unavailable: problems.on_lastevent_error, Exception: problems.on_bug},
    middleware=[Middleware(Edge)],
)


@pytest.fixture
def lines() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as lines:
        yield lines


async def get(path: str, given: bytes | None = None) -> httpx2.Response:
    transport = httpx2.ASGITransport(app=APP, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://here") as client:
        return await client.get(path, headers={b"X-Request-ID": given} if given is not None else None)


async def test_one_that_stays_connected_has_its_line_once_it_is_over(lines: list[Any]) -> None:
    departures: list[Callable[[], None]] = []

    async def stream(scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        departures.append(partial(notes(scope).update, frames=7))

    scope: Scope = {
        "type": "http", "method": "GET", "path": "/v1/jobs/job_1/events", "headers": [], "extensions": {DEPARTURES: departures}
    }  # fmt: skip
    await Edge(stream)(scope, cast(Receive, None), _swallow)
    scope.clear()  # as the server does, to keep little of a reader that waits
    assert not lines
    for call in departures:
        call()
    [line] = lines
    assert (line["path"], line["status"], line["frames"]) == ("/v1/jobs/job_1/events", 200, 7)


async def _swallow(_message: Message) -> None:
    return


async def test_an_id_that_the_caller_gives_is_kept_and_repeated(lines: list[Any]) -> None:
    answer = await get("/v1/jobs/job_1", b"edge-42/a")
    assert (answer.text, answer.headers["x-request-id"]) == ("edge-42/a", "edge-42/a")


@pytest.mark.parametrize("given", [None, b"", b"two words", b"tab\there", b"caf\xc3\xa9", b"x" * 129])
async def test_what_is_no_id_is_replaced_by_one_of_ours(lines: list[Any], given: bytes | None) -> None:
    answer = await get("/v1/jobs/job_1", given)
    made = answer.headers["x-request-id"]
    assert answer.text == made
    assert len(made) == 32
    assert made.isalnum()


async def test_the_longest_id_is_taken(lines: list[Any]) -> None:
    assert (await get("/v1/jobs/job_1", b"x" * 128)).text == "x" * 128


@pytest.mark.parametrize(("path", "status"), [("refused", 503), ("failed", 500)])
async def test_problems_name_it_in_header_and_body(lines: list[Any], path: str, status: int) -> None:
    answer = await get(f"/v1/jobs/job_1/{path}", b"edge-42")
    assert answer.status_code == status
    assert (answer.headers["x-request-id"], answer.json()["request_id"]) == ("edge-42", "edge-42")
    assert [line["status"] for line in lines if line["event"] == "request"] == [status]


async def test_a_line_says_what_was_asked_and_answered_and_never_the_query(lines: list[Any]) -> None:
    await get("/v1/jobs/job_1?token=secret")
    [line] = lines
    assert line["ms"] >= 0
    assert {name: line[name] for name in ("log_level", "method", "path", "status", "job", "frames")} == {
        "log_level": "info", "method": "GET", "path": "/v1/jobs/job_1", "status": 200, "job": "job_1", "frames": 3,
    }  # fmt: skip
    assert "secret" not in str(lines)
    assert "why" not in line


async def test_what_balancers_ask_is_for_debugging(lines: list[Any]) -> None:
    await get("/healthz")
    assert [line["log_level"] for line in lines] == ["debug"]
