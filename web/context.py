"""What the request handlers of one process share, and what a request says of its caller."""

import asyncio
from typing import Final

import msgspec
from redis.asyncio import Redis
from starlette.requests import Request

from shared.event_log import EventLog
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.settings import Settings
from web.hub import Hub
from web.metrics import Metrics
from web.stream_tokens import StreamTokens

TENANT: Final = "lastevent.tenant"
"""Where an ASGI scope says whose call it is (`web/auth.py`)."""

TOKEN: Final = "lastevent.token"  # noqa: S105  # the name of a place
"""Where it keeps the stream token of a caller that showed no key."""


class Context(msgspec.Struct, frozen=True):
    settings: Settings
    redis: Redis
    log: EventLog
    store: JobStore
    queue: JobQueue
    hub: Hub
    metrics: Metrics
    tokens: StreamTokens
    leaving: asyncio.Event
    """Set once balancers are to send requests elsewhere."""


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


def tenant_of(request: Request) -> str:
    """Whose call it is; without keys all calls are of the one tenant that has no name."""
    tenant: str = request.scope.get(TENANT, "")
    return tenant


async def events_url(request: Request, job_id: str) -> str:
    """Where a browser of the caller reads the job's event stream: with keys the URL carries a token. Who came with a token gets
    that one back, or it would renew itself for ever. Raises RedisUnavailable."""
    context, path = context_of(request), f"/v1/jobs/{job_id}/events"
    if not context.settings.api_keys:
        return path
    token = request.scope.get(TOKEN) or (await context.tokens.make(job_id, tenant_of(request))).text
    return f"{path}?token={token}"
