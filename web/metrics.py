"""`GET /metrics`: what this web process does, and how full the lanes are, as Prometheus text."""

import asyncio
from collections.abc import Iterator, Sequence
from typing import Final

import structlog
from prometheus_client import Counter, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from redis.asyncio import Redis
from starlette.requests import Request
from starlette.responses import Response

from shared.job_store import JobStore
from shared.loop_lag import LoopLag
from shared.metrics import CLOSED, Numbers, counter, counters, gauges, new_registry
from shared.operations import LaneLoad, clock, lane_loads
from shared.redis_client import UNREACHABLE
from shared.settings import Lane
from web.hub import Hub

log = structlog.get_logger()

_PATIENCE_S: Final = 2.0
"""How long a scrape waits for Redis: Prometheus itself gives up after ten seconds, and the rest is worth telling."""


class Metrics:
    """One registry a process."""

    def __init__(self, hub: Hub, loop_lag: LoopLag, redis: Redis, store: JobStore, lanes: Sequence[Lane]) -> None:
        self._hub = hub
        self._redis = redis
        self._store = store
        self._lane_names = lanes
        self._loads: Sequence[LaneLoad] | None = None
        """As the last scrape found the lanes; None while Redis is away."""
        self._registry = new_registry(loop_lag)
        self.submits = Counter("lastevent_submits", "Jobs accepted, by provider", ["provider"], registry=self._registry)
        self.cancels = Counter("lastevent_cancels", "Cancels asked for, by answer", ["answer"], registry=self._registry)
        self.closed = Counter("lastevent_jobs_closed", CLOSED, ["status", "code"], registry=self._registry)
        self.streams_opened = Counter(
            "lastevent_streams_opened",
            "Event streams opened, by whether the reader came back",
            ["resumed"],
            registry=self._registry,
        )
        self._registry.register(Numbers(self._readers))
        self._registry.register(Numbers(self._lanes))

    async def scrape(self) -> bytes:
        """The text of the moment."""
        self._loads = await self._look()
        return generate_latest(self._registry)

    async def _look(self) -> list[LaneLoad] | None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                workers = await self._store.workers()
                return await lane_loads(self._redis, self._lane_names, workers, await clock(self._redis))
        except (*UNREACHABLE, TimeoutError) as error:
            log.debug("a scrape learns nothing of the lanes: Redis is away", error=str(error))
            return None

    def _readers(self) -> Iterator[Metric]:
        hub, traffic = self._hub, self._hub.traffic
        reconnects = {reason.replace(" ", "_"): count for reason, count in traffic.reconnects.items()}
        yield GaugeMetricFamily("lastevent_readers", "Open event streams", len(hub))
        yield GaugeMetricFamily("lastevent_followed_jobs", "Jobs followed for at least one reader", hub.followed)
        yield counter("lastevent_deliveries", "Writes of live events to readers", traffic.deliveries)
        yield counter("lastevent_frames", "Frames sent to readers", hub.frames)
        yield counter("lastevent_merged_frames", "Frames that stood for several entries", traffic.merged_frames)
        yield counter("lastevent_frame_bytes", "Bytes of frames sent to readers", traffic.size)
        yield counter("lastevent_replays", "Readings of a log for a reader that came, or fell behind", traffic.replays)
        yield counter("lastevent_rewinds", "Readers told to start over", traffic.rewinds)
        yield counter("lastevent_stalled_readers", "Readers aborted because they took nothing", traffic.stalled)
        yield counters("lastevent_reconnects", "Readers sent away to come back, by reason", "reason", reconnects)

    def _lanes(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("lastevent_redis_up", "Whether Redis told how full the lanes are", self._loads is not None)
        loads = self._loads or ()
        oldest = {load.lane: load.oldest_s or 0.0 for load in loads}
        queued = {load.lane: load.queued for load in loads}
        running = {load.lane: load.running for load in loads}
        slots = {load.lane: load.slots for load in loads}
        yield gauges("lastevent_queue_depth", "Jobs that wait in a lane", "lane", queued)
        yield gauges("lastevent_queue_oldest_seconds", "How long the oldest of them has waited", "lane", oldest)
        yield gauges("lastevent_lane_running_jobs", "Jobs of a lane under a lease", "lane", running)
        yield gauges("lastevent_lane_slots", "Slots of a lane's live workers", "lane", slots)


async def metrics(request: Request) -> Response:
    return Response(await request.app.state.context.metrics.scrape(), headers={"Content-Type": CONTENT_TYPE_LATEST})
