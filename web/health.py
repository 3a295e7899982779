"""Is it alive, is it ready, what does it serve: `/healthz`, `/readyz`, `/v1/models`, `/v1/workers` (protocol 2)."""

from starlette.requests import Request
from starlette.responses import Response

from shared.errors import Unavailable
from shared.models import listed_models
from shared.redis_client import UNREACHABLE
from shared.settings import API_LANE
from web.context import Context, context_of
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
    """`GET /v1/models`, as OpenAI lists them; the default model first. `missing_key` names the variable of a key that no live
    worker has."""
    context = context_of(request)
    listed = sorted(listed_models(context.settings), key=lambda model: model.id != context.settings.default_model)
    missing = await _missing_keys(context)
    data = [
        {
            "id": model.id,
            "object": "model",
            "created": 0,
            "owned_by": model.provider,
            "lane": model.lane,
            "missing_key": missing.get(model.provider),
        }
        for model in listed
    ]
    return json_response({"object": "list", "data": data})


async def _missing_keys(context: Context) -> dict[str, str]:
    """What all live workers that call other servers lack. Keys are theirs alone, so without them, or Redis, none is known to
    be missing."""
    try:
        told = [worker.missing_keys for worker in await context.store.workers() if worker.lane == API_LANE]
    except UNREACHABLE:
        return {}
    return {name: told[0][name] for name in told[0] if all(name in others for others in told)} if told else {}


async def workers(request: Request) -> Response:
    """`GET /v1/workers`: the live ones."""
    return json_response({"data": await context_of(request).store.workers()})
