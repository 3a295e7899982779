"""`GET /metrics`: what this web process does, as Prometheus text."""

from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, disable_created_metrics, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, of which nobody asks


class Metrics:
    """One registry a process; hot paths count in plain integers, and this reads them when it is asked."""

    def __init__(self, readers: Callable[[], int], streams: Callable[[], int], deliveries: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        self.submits = Counter("lastevent_submits", "Jobs accepted, by provider", ["provider"], registry=self._registry)
        self.streams_opened = Counter(
            "lastevent_streams_opened",
            "Event streams opened, by whether the reader came back",
            ["resumed"],
            registry=self._registry,
        )
        self._registry.register(_HubNumbers(readers, streams, deliveries))

    def render(self) -> bytes:
        return generate_latest(self._registry)


class _HubNumbers(Collector):
    def __init__(self, readers: Callable[[], int], streams: Callable[[], int], deliveries: Callable[[], int]) -> None:
        self._readers, self._streams, self._deliveries = readers, streams, deliveries

    def collect(self) -> Iterator[Metric]:
        yield GaugeMetricFamily("lastevent_readers", "Open event streams", self._readers())
        yield GaugeMetricFamily("lastevent_followed_jobs", "Jobs followed for at least one reader", self._streams())
        yield CounterMetricFamily("lastevent_deliveries", "Writes of live events to readers", self._deliveries())


async def metrics(request: Request) -> Response:
    return Response(request.app.state.context.metrics.render(), headers={"Content-Type": CONTENT_TYPE_LATEST})
