"""`POST /v1/chaos/kill-worker`: SIGKILL to the worker that runs a job, so that people can see what becomes of the answer.

The route is there under `lastevent up --allow-chaos` alone, which listens on loopback alone. This process kills nobody: it
writes a pid into the pipe that it inherited, and `up` kills its own workers only (`cli/kill_switch.py`).
"""

import os

import msgspec
import structlog
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shared.errors import InvalidRequest
from shared.job_store import WorkerInfo
from web.context import Context, context_of, tenant_of
from web.jobs import check_media_type, json_response, read_body
from web.problems import CrossOrigin, NothingToKill

_BODY_LIMIT = 1024

log = structlog.get_logger()


class KillRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    job_id: str


def kill_route(fd: int) -> Route:
    """The route; `fd` is the pipe's end to write to."""

    async def kill_worker(request: Request) -> Response:
        """202: `up` was asked. Raises CrossOrigin, InvalidRequest, JobNotFound, NothingToKill."""
        _check_same_origin(request)
        check_media_type(request)
        job_id = _parse(await read_body(request, _BODY_LIMIT)).job_id
        worker = await _worker_of(job_id, tenant_of(request), context_of(request))
        log.warning("asking for a worker's death", job=job_id, worker=worker.id, pid=worker.pid)
        os.write(fd, b"%d\n" % worker.pid)  # far below PIPE_BUF: whole, and at once
        return json_response({"worker": worker.id, "pid": worker.pid}, 202)

    return Route("/v1/chaos/kill-worker", kill_worker, methods=["POST"])


def _check_same_origin(request: Request) -> None:
    """Browsers say where a POST comes from. Whoever says nothing is no browser, and could kill processes without us."""
    origin = request.headers.get("origin")
    if origin is not None and origin != f"{request.url.scheme}://{request.headers.get('host', '')}":
        raise CrossOrigin(f"A page of {origin} may not kill workers here.")


def _parse(body: bytes) -> KillRequest:
    try:
        return msgspec.json.decode(body, type=KillRequest)
    except msgspec.DecodeError as error:
        raise InvalidRequest(f'The body must be {{"job_id": "job_…"}}: {error}.') from None


async def _worker_of(job_id: str, tenant: str, context: Context) -> WorkerInfo:
    await context.store.check(job_id, tenant)
    record = await context.store.record(job_id)
    for worker in await context.store.workers():
        if record.owned and worker.id == record.worker and worker.host == context.settings.hostname:
            return worker
    raise NothingToKill(f"No worker of this machine runs {job_id} now; it is {record.status}.")
