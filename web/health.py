"""Is it alive, is it ready, what does it serve: `/healthz`, `/readyz`, `/v1/models`, `/v1/workers` (protocol 2)."""

from starlette.requests import Request
from starlette.responses import Response

from shared.errors import Unavailable
from shared.models import listed_models
from shared.redis_client import UNREACHABLE
from web.context import context_of
from web.jobs import json_response
from web.problems import from_error


async def healthz(request: Request) -> Response:
    """200 while this process can answer, Redis or not; 503 once it is about to stop. Balancers route by this one."""
    if context_of(request).leaving.is_set():
        return from_error(Unavailable("This server is stopping.", retry_after_s=1))
    return json_response({"status": "ok"})


async def readyz(request: Request) -> Response:
    """200 with Redis reachable and a live worker in each configured lane."""
    context = context_of(request)
    try:
        workers = await context.store.workers()
    except UNREACHABLE:
        return from_error(Unavailable("Redis is away."))
    missing = [lane for lane in context.settings.lanes if not any(w.lane == lane for w in workers)]
    if missing:
        return from_error(
            Unavailable(f"No live worker in {'the lane' if len(missing) == 1 else 'the lanes'} {', '.join(missing)}.")
        )
    return json_response({"status": "ready", "lanes": list(context.settings.lanes), "workers": len(workers)})


async def models(request: Request) -> Response:
    """`GET /v1/models`, as OpenAI lists them; the default model first."""
    settings = context_of(request).settings
    listed = sorted(listed_models(settings), key=lambda model: model.id != settings.default_model)
    data = [{"id": m.id, "object": "model", "created": 0, "owned_by": m.provider, "lane": m.lane} for m in listed]
    return json_response({"object": "list", "data": data})


async def workers(request: Request) -> Response:
    """`GET /v1/workers`: the live ones."""
    return json_response({"data": await context_of(request).store.workers()})
