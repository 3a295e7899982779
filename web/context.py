"""What the request handlers of one process share."""

import asyncio

import msgspec
from redis.asyncio import Redis
from starlette.requests import Request

from shared.event_log import EventLog
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.settings import Settings
from web.hub import Hub
from web.metrics import Metrics


class Context(msgspec.Struct, frozen=True):
    settings: Settings
    redis: Redis
    log: EventLog
    store: JobStore
    queue: JobQueue
    hub: Hub
    metrics: Metrics
    leaving: asyncio.Event
    """Set once balancers are to send requests elsewhere."""


def context_of(request: Request) -> Context:
    context: Context = request.app.state.context
    return context
