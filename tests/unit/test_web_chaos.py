"""web/chaos.py: who may ask for a worker's death, and what goes into the pipe."""

import json
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from shared.errors import ConfigurationError, InvalidRequest, JobNotFound
from shared.job_store import WorkerInfo
from shared.settings import Settings
from web.chaos import kill_route
from web.main import build_app
from web.problems import CrossOrigin, NothingToKill, UnsupportedMediaType

HOST = "127.0.0.1:8000"
HERE = Settings().hostname
JOBS = {
    "job_running": SimpleNamespace(owned=True, worker="w1", status="running"),
    "job_queued": SimpleNamespace(owned=False, worker=None, status="queued"),
    "job_elsewhere": SimpleNamespace(owned=True, worker="w2", status="running"),
    "job_orphan": SimpleNamespace(owned=True, worker="w3", status="running"),
}
WORKERS = [WorkerInfo("w1", "api", HERE, 4711, 1, 4, 1.0), WorkerInfo("w2", "api", "another-machine", 4712, 1, 4, 1.0)]


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    yield read_end, write_end
    os.close(read_end)
    os.close(write_end)


def written(read_end: int) -> bytes:
    try:
        return os.read(read_end, 100)
    except BlockingIOError:
        return b""


async def ask(fd: int, body: object, **headers: str) -> Response:
    async def record(job_id: str) -> Any:
        if job_id not in JOBS:
            raise JobNotFound(job_id)
        return JOBS[job_id]

    async def check(job_id: str, tenant: str) -> None:
        await record(job_id)
        assert tenant == "", "there are no keys"

    async def workers() -> list[WorkerInfo]:
        return WORKERS

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps(body).encode()}

    sent = {"host": HOST, "content-type": "application/json"} | {name.replace("_", "-"): v for name, v in headers.items()}
    context = SimpleNamespace(settings=Settings(), store=SimpleNamespace(record=record, check=check, workers=workers))
    scope = {
        "type": "http", "method": "POST", "path": "/v1/chaos/kill-worker", "scheme": "http", "query_string": b"",
        "server": ("127.0.0.1", 8000), "headers": [(name.encode(), value.encode()) for name, value in sent.items()],
        "app": SimpleNamespace(state=SimpleNamespace(context=context)),
    }  # fmt: skip
    answer: Response = await kill_route(fd).endpoint(Request(scope, receive))
    return answer


@pytest.mark.parametrize("origin", [{}, {"origin": f"http://{HOST}"}])
async def test_the_pid_of_the_jobs_worker_goes_into_the_pipe(pipe: tuple[int, int], origin: dict[str, str]) -> None:
    answer = await ask(pipe[1], {"job_id": "job_running"}, **origin)
    assert (answer.status_code, json.loads(bytes(answer.body))) == (202, {"worker": "w1", "pid": 4711})
    assert written(pipe[0]) == b"4711\n"


@pytest.mark.parametrize("origin", ["https://evil.example", "http://127.0.0.1:9000", f"https://{HOST}", "null"])
async def test_a_page_of_another_origin_is_refused(pipe: tuple[int, int], origin: str) -> None:
    with pytest.raises(CrossOrigin):
        await ask(pipe[1], {"job_id": "job_running"}, origin=origin)
    assert written(pipe[0]) == b""


async def test_what_a_form_could_send_is_refused(pipe: tuple[int, int]) -> None:
    with pytest.raises(UnsupportedMediaType):
        await ask(pipe[1], {"job_id": "job_running"}, content_type="text/plain")


@pytest.mark.parametrize("body", [{}, [], {"job_id": 1}, {"job_id": "job_running", "signal": 9}])
async def test_another_body_is_refused(pipe: tuple[int, int], body: object) -> None:
    with pytest.raises(InvalidRequest, match="job_id"):
        await ask(pipe[1], body)


@pytest.mark.parametrize("job_id", ["job_queued", "job_elsewhere", "job_orphan"])
async def test_a_job_that_no_live_worker_of_this_machine_runs(pipe: tuple[int, int], job_id: str) -> None:
    with pytest.raises(NothingToKill, match=job_id):
        await ask(pipe[1], {"job_id": job_id})
    assert written(pipe[0]) == b""


async def test_an_unknown_job(pipe: tuple[int, int]) -> None:
    with pytest.raises(JobNotFound):
        await ask(pipe[1], {"job_id": "job_none"})


# --- whether it is there -------------------------------------------------------------------------------------------------


async def test_the_route_is_there_with_a_pipe_alone() -> None:
    for fd, there in ((None, False), (99, True)):
        app = build_app(Settings(), fd)
        assert ("/v1/chaos/kill-worker" in {getattr(route, "path", "") for route in app.routes}) == there
        await app.state.context.redis.aclose()


@pytest.mark.parametrize("settings", [Settings(allow_remote=True), Settings(host="0.0.0.0")], ids=["allowed", "with-keys"])
def test_a_server_that_others_reach_has_none(settings: Settings) -> None:
    """Keys permit a host that others reach; they do not permit this."""
    with pytest.raises(ConfigurationError, match="loopback alone"):
        build_app(settings, 99)
