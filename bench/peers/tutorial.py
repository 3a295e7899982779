"""Two servers out of Starlette and sse-starlette on a plain Redis Stream: the tutorial design, and one with a shared reader."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from redis.asyncio import Redis

from bench.peers.base import Server, Stream
from shared.redis_client import make_client


class PlainStream(Stream):
    """A Redis Stream as everybody writes it: an `XADD` a token, ids by Redis."""

    def __init__(self, path: str, redis: Redis, name: str) -> None:
        super().__init__(path)
        self._redis = redis
        self._name = name

    async def write(self, text: str) -> None:
        await self._redis.xadd(self._name, {"text": text})

    async def write_all(self, texts: list[str]) -> None:
        async with self._redis.pipeline(transaction=False) as pipe:
            for text in texts:
                pipe.xadd(self._name, {"text": text})
            await pipe.execute()


class _OnPlainStreams(Server):
    module: ClassVar[str]

    async def start(self) -> None:
        command = ("uvicorn", f"{self.module}:app", "--port", "0", "--no-access-log", "--no-use-colors")
        self.web = await self.stage.python(*command, may_end=True, BENCH_REDIS_URL=self.stage.redis_url)
        self.port = int((await self.web.logged("Uvicorn running on")).partition("127.0.0.1:")[2].split()[0])

    def path_of(self, name: str) -> str:
        return f"/{name}/events"

    def stream_of(self, name: str) -> str:
        """A stream that no other server has: both are on one Redis, and read what they find from its beginning."""
        return f"{type(self).__name__}-{name}"

    @asynccontextmanager
    async def stream(self, name: str) -> AsyncIterator[Stream]:
        redis = make_client(self.stage.settings())
        try:
            yield PlainStream(self.path_of(self.stream_of(name)), redis, self.stream_of(name))
        finally:
            await redis.aclose()


class Tutorial(_OnPlainStreams):
    name = "tutorial"
    likely_crowd = 400
    module = "bench.peers.tutorial_app"


class SseStarlette(_OnPlainStreams):
    name = "sse-starlette"
    likely_crowd = 800
    module = "bench.peers.sse_starlette_app"

    def note(self) -> str:
        return "sse-starlette: EventSourceResponse as it comes; one XREAD for all readers of a stream, frames encoded once."
