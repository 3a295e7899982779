"""`GET /v1/operations`: what the operations view draws (protocol 6)."""

from starlette.requests import Request
from starlette.responses import Response

from shared.operations import WebLoad, look
from web.context import context_of
from web.jobs import json_response


async def operations(request: Request) -> Response:
    """The same from every web process, but for `web`, which is the one that answers."""
    context = context_of(request)
    hub = context.hub
    web = WebLoad(streams=hub.followed, readers=len(hub))
    return json_response(await look(context.redis, context.settings.lanes, await context.store.workers(), web))
