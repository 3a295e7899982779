"""What the tiers' `/metrics` have in common. Names follow OpenTelemetry's conventions where those have one, and begin with
`lastevent_` where not; docs/OPERATIONS.md lists them all, and a test compares.

Hot paths count in plain numbers, and a collector reads those when it is asked: prometheus-client's own counters take a lock
each time (docs/decisions/0033). Labels are bounded: lanes, reasons, codes, and models of the settings; never a job or a tenant.
"""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Final

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from shared.loop_lag import LoopLag
from shared.spread import Spread

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, of which nobody asks

CLOSED: Final = "Jobs ended from here that ran elsewhere, or nowhere"
"""What `lastevent_jobs_closed` means in both tiers."""


class Numbers(Collector):
    """Plain numbers, read when a scrape asks for them. `read` yields the families of the moment."""

    def __init__(self, read: Callable[[], Iterator[Metric]]) -> None:
        self._read = read

    def collect(self) -> Iterator[Metric]:
        return self._read()


def new_registry(loop_lag: LoopLag) -> CollectorRegistry:
    """One a process, with what every process tells of itself."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)

    def read() -> Iterator[Metric]:
        yield InfoMetricFamily("lastevent_build", "The release that runs", {"version": version("lastevent")})
        yield histogram("lastevent_loop_lag_seconds", "How late the event loop is", loop_lag.seconds)

    registry.register(Numbers(read))
    return registry


def counter(name: str, meaning: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, meaning, value)


def counters(name: str, meaning: str, label: str, values: Mapping[str, int]) -> CounterMetricFamily:
    """A series a value of one label."""
    family = CounterMetricFamily(name, meaning, labels=[label])
    for word, value in list(values.items()):  # a copy: another thread may ask while the loop counts
        family.add_metric([word], value)
    return family


def gauges(name: str, meaning: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(name, meaning, labels=[label])
    for word, value in values.items():
        family.add_metric([word], value)
    return family


def histogram(name: str, meaning: str, spread: Spread) -> HistogramMetricFamily:
    family = HistogramMetricFamily(name, meaning)
    up_to, buckets = 0, []
    for bound, count in zip((*spread.bounds, float("inf")), list(spread.counts), strict=True):
        up_to += count
        buckets.append((str(bound) if bound != float("inf") else "+Inf", float(up_to)))
    family.add_metric([], buckets, spread.total)
    return family
