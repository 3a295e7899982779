"""sse-starlette as it comes, spared what the tutorial does a reader: one `XREAD BLOCK` for all readers of a stream, each frame
encoded once and put into a queue per reader. What is left is the response's own cost.

Run by uvicorn as it comes: `python -m uvicorn bench.peers.sse_starlette_app:app`.
"""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import Redis
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route


class Broadcast:
    """One stream's readers, and the task that feeds them."""

    def __init__(self, redis: Redis, stream: str) -> None:
        self.queues: set[asyncio.Queue[bytes]] = set()
        self._redis = redis
        self._stream = stream
        self.task = asyncio.create_task(self._feed_forever())

    async def _feed_forever(self) -> None:
        last = "0-0"
        while True:
            answer = await self._redis.xread({self._stream: last}, block=5000, count=100)
            for _, entries in answer:
                for entry_id, fields in entries:
                    last = entry_id.decode()
                    data = json.dumps({"type": "token", "text": fields[b"text"].decode()})
                    frame = f"id: {last}\ndata: {data}\n\n".encode()
                    for queue in self.queues:
                        queue.put_nowait(frame)


async def events(request: Request) -> EventSourceResponse:
    broadcasts: dict[str, Broadcast] = request.app.state.broadcasts
    stream = request.path_params["stream"]
    if stream not in broadcasts:
        broadcasts[stream] = Broadcast(request.app.state.redis, stream)
    broadcast = broadcasts[stream]

    async def frames() -> AsyncIterator[bytes]:
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        broadcast.queues.add(queue)
        try:
            while True:
                yield await queue.get()
        finally:
            broadcast.queues.discard(queue)

    return EventSourceResponse(frames())


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.redis, app.state.broadcasts = Redis.from_url(os.environ["BENCH_REDIS_URL"]), {}
    yield
    for broadcast in app.state.broadcasts.values():
        broadcast.task.cancel()
    await app.state.redis.aclose()


app = Starlette(routes=[Route("/{stream}/events", events)], lifespan=lifespan)
