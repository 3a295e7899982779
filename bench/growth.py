"""Scenario G: what a token costs as the whole grows: ten times the streams, one to four workers, one to two web processes.

Every process is a real one: a provider that keeps an exact pace, workers, Redis, web, and a reader a stream. CPU is counted
over some seconds in which all streams run, so that starting them is no part of it. The worker's and the web tier's part must
stay what it is, whatever they are many of: then they grow with the cores that they are given, and Redis is what they share.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, NamedTuple

from redis.asyncio import Redis

from bench.crowd import Crowd
from bench.figures import Finding, Row
from bench.stage import BenchFailed, Child, Stage
from bench.worker_load import Load, Upstream
from shared import keys
from shared.event_log import EventLog
from shared.job import JobRequest
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from shared.models import resolve
from shared.redis_client import make_client

ALL: Final = "CPU µs/token"
_PER_S: Final = 20
_WINDOW_S, _WINDOW_QUICK_S = 4.0, 2.0
_LONGEST_S: Final = 60
"""How long a stream would last; it is cancelled once it was measured."""
_ALL_RUN_S: Final = 30.0


class Shape(NamedTuple):
    """How many there are of what."""

    streams: int
    workers: int
    webs: int

    @property
    def case(self) -> str:
        return f"{self.streams} streams"

    @property
    def processes(self) -> str:
        return f"{self.workers} worker{'s' * (self.workers > 1)}, {self.webs} web"


_SHAPES_FULL: Final = (Shape(20, 1, 1), Shape(200, 1, 1), Shape(200, 2, 1), Shape(200, 4, 1), Shape(200, 4, 2))
"""Each has what the one before has, and more."""
_SHAPES: Final = tuple(shape for shape in _SHAPES_FULL if shape.workers != 2)
_SHAPES_QUICK: Final = (Shape(20, 1, 1), Shape(100, 1, 1), Shape(100, 2, 2))


class Spent(NamedTuple):
    """CPU seconds so far, and tokens in the logs."""

    worker_s: float
    web_s: float
    redis_s: float
    tokens: int


class Scene:
    """What runs."""

    def __init__(self, stage: Stage, redis: Redis, redis_server: Child, upstream: Upstream, crowd: Crowd) -> None:
        self.stage, self.redis, self.upstream, self.crowd = stage, redis, upstream, crowd
        self.settings = stage.settings()
        self.queue = JobQueue(redis, self.settings)
        self.store = JobStore(redis, EventLog(redis, self.settings))
        self.webs: list[tuple[Child, int]] = []
        self._redis_server = redis_server
        self._workers: list[Child] = []

    async def grow(self, shape: Shape) -> None:
        """Starts what the shape has more."""
        env = self.stage.environment(openai_base_url=self.upstream.base_url, log_level="info", log_json="1")
        while len(self._workers) < shape.workers:
            self._workers.append(await self.stage.python("cli.main", "worker", "--lane", "api", **env))
            await self._workers[-1].logged("worker is ready")
        while len(self.webs) < shape.webs:
            web = await self.stage.python("cli.main", "web", "--port", "0", **env)
            self.webs.append((web, int(json.loads(await web.logged("web is listening"))["port"])))

    async def spent(self, job_ids: list[str]) -> Spent:
        workers_s = sum(worker.cpu_s for worker in self._workers)
        webs_s = sum(web.cpu_s for web, _ in self.webs)
        async with self.redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.xlen(keys.log(job_id))
            return Spent(workers_s, webs_s, self._redis_server.cpu_s, sum(await pipe.execute()))

    async def until_running(self, jobs: int) -> None:
        """Until the workers say that so many jobs run; they do three times a lease. Raises BenchFailed."""
        try:
            async with asyncio.timeout(_ALL_RUN_S):
                while await self._running() != jobs:  # noqa: ASYNC110  # other processes set no event here
                    await asyncio.sleep(0.1)
        except TimeoutError:
            raise BenchFailed(f"{jobs} jobs did not come to run within {_ALL_RUN_S:g} s") from None

    async def _running(self) -> int:
        return sum(worker.running for worker in await self.store.workers())


async def run(stage: Stage) -> Finding:
    redis_server = await stage.redis()
    process = await stage.python("bench.paced_server")
    upstream = Upstream(process, int(await process.line()))
    redis = make_client(stage.settings())
    try:
        scene = Scene(stage, redis, redis_server, upstream, await Crowd.build(stage))
        shapes = _SHAPES_QUICK if stage.quick else _SHAPES_FULL if stage.full else _SHAPES
        rows = [await _measure(scene, shape) for shape in shapes]
    finally:
        await redis.aclose()
    return Finding(
        letter="G",
        title=f"Growth: the cost of a token, from the provider's socket to the reader's, at {_PER_S} tokens/s a stream",
        rows=rows,
        compare="",  # nobody else is in it
        notes=[
            "The provider, the readers and all of these share the machine: what shows here is the cost, not how much more goes "
            "through. With few tokens a round trip, 20 streams cost more each than 200: what is gathered is cheaper."
        ],
    )


async def _measure(scene: Scene, shape: Shape) -> Row:
    scene.stage.say(f"growth: {shape.case}, {shape.processes}")
    await scene.grow(shape)
    window_s = _WINDOW_QUICK_S if scene.stage.quick else _WINDOW_S
    async with _streams(scene, shape.streams) as job_ids, _readers(scene, job_ids):
        await scene.until_running(shape.streams)
        await scene.upstream.latest_ms()
        before = await scene.spent(job_ids)
        await asyncio.sleep(window_s)
        after = await scene.spent(job_ids)
        late_ms = await scene.upstream.latest_ms()
    return Row(shape.case, shape.processes, _figures(before, after, window_s, late_ms))


def _figures(before: Spent, after: Spent, window_s: float, late_ms: float) -> dict[str, float]:
    tokens = after.tokens - before.tokens
    worker, web, redis = (
        round((b - a) / tokens * 1e6, 1) for a, b in zip(before[:3], after[:3], strict=True)
    )  # fmt: skip
    return {
        ALL: round(worker + web + redis, 1),
        "worker µs": worker,
        "web µs": web,
        "Redis µs": redis,
        "tokens/s": round(tokens / window_s),
        "upstream late ms": late_ms,
    }


@asynccontextmanager
async def _streams(scene: Scene, n: int) -> AsyncIterator[list[str]]:
    """So many jobs, cancelled at the end."""
    name = f"openai/{Load(n, _PER_S).model(_LONGEST_S)}"
    request, model = JobRequest(model=name, prompt="Hello"), resolve(name, scene.settings)
    job_ids = [(await scene.queue.submit(request, model)).job_id for _ in range(n)]
    yield job_ids
    for job_id in job_ids:
        await scene.queue.cancel(job_id)
    await scene.until_running(0)


@asynccontextmanager
async def _readers(scene: Scene, job_ids: list[str]) -> AsyncIterator[None]:
    """A reader a stream, the streams shared out among the web processes."""
    async with AsyncExitStack() as crowds:
        for i, (_, port) in enumerate(scene.webs):
            paths = [f"/v1/jobs/{job_id}/events" for job_id in job_ids[i :: len(scene.webs)]]
            await crowds.enter_async_context(scene.crowd.open(port, paths, len(paths), seconds=_LONGEST_S, count="tokens"))
        yield
