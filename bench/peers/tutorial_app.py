"""The tutorial design: Starlette and sse-starlette, a loop of `XREAD BLOCK` and a connection per reader, events as dicts.

This is how event streams over Redis Streams are commonly written, and what a reader's cursor, a shared tail and frames encoded
once are measured against. Run by uvicorn as it comes: `python -m uvicorn bench.peers.tutorial_app:app`.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


async def events(request: Request) -> EventSourceResponse:
    redis: Redis = request.app.state.redis
    stream = request.path_params["stream"]

    async def tokens() -> AsyncIterator[dict[str, str]]:
        last = request.headers.get("last-event-id", "0-0")
        while True:
            answer = await redis.xread({stream: last}, block=5000, count=100)
            for _, entries in answer:
                for entry_id, fields in entries:
                    last = entry_id.decode()
                    yield {"id": last, "data": json.dumps({"type": "token", "text": fields[b"text"].decode()})}

    return EventSourceResponse(tokens())


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.redis = Redis.from_url(os.environ["BENCH_REDIS_URL"])
    yield
    await app.state.redis.aclose()


app = Starlette(routes=[Route("/{stream}/events", events)], lifespan=lifespan)
