"""A worker's `/metrics`: its jobs as a reader meets them (`gen_ai_server_…`), its calls as a provider's client sees them
(`gen_ai_client_…`), and itself (`lastevent_…`).

The difference between the first two is what is done here: queue, retries, fallbacks, takeovers. Attributes of OpenTelemetry's
conventions have underscores for dots.
"""

from collections.abc import Iterator
from typing import Final

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import CounterMetricFamily, Metric

from shared.event_log import EventLog
from shared.events import Done, Error, StartReason, Terminal, Usage
from shared.log_commands import final_status
from shared.loop_lag import LoopLag
from shared.metrics import CLOSED, Numbers, counter, counters, histogram, new_registry
from shared.models import Model, listed_models
from shared.settings import Lane, Settings
from worker.control import Running
from worker.leases import Leases
from worker.reaper import Reaper
from worker.tally import KINDS, Tally
from worker.writer import Writer

_MODEL_LABELS: Final = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")

# The boundaries are those that the conventions name.
_OPERATION_S: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST_TOKEN_S: Final = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
_OUTPUT_TOKEN_S: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS: Final = tuple(4**n for n in range(14))

_QUEUE_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)


class WorkerMetrics:
    """One registry a worker. Labels name the models of the settings; any other is `other`, for callers choose those."""

    def __init__(self, settings: Settings, lane: Lane, loop_lag: LoopLag) -> None:
        self.registry = registry = new_registry(loop_lag)
        self.tally = Tally()
        self._lane = lane
        self._listed = {model.id for model in listed_models(settings)}
        self.request_s = self._of_models(
            "gen_ai_server_request_duration_seconds", "Jobs, from submit to end", _OPERATION_S, "error_type"
        )
        self.first_token_s = self._of_models(
            "gen_ai_server_time_to_first_token_seconds", "Finished jobs, from submit to first output", _FIRST_TOKEN_S
        )
        self.output_token_s = self._of_models(
            "gen_ai_server_time_per_output_token_seconds", "Finished jobs, a token after the first", _OUTPUT_TOKEN_S
        )
        self.call_s = self._of_models(
            "gen_ai_client_operation_duration_seconds", "Calls of providers, to their end", _OPERATION_S, "error_type"
        )
        self.first_chunk_s = self._of_models(
            "gen_ai_client_operation_time_to_first_chunk_seconds", "Calls of providers, to their first output", _OPERATION_S
        )
        self.usage = self._of_models(
            "gen_ai_client_token_usage", "Tokens of each call, as told or counted", _TOKENS, "gen_ai_token_type"
        )
        self.queue_s = Histogram(
            "lastevent_queue_wait_seconds", "From submit to first claim", ["lane"], buckets=_QUEUE_S, registry=registry
        )
        self.attempts = Counter("lastevent_attempts", "Attempts opened, by reason", ["reason"], registry=registry)
        self.failed_calls = Counter("lastevent_failed_calls", "Calls that failed, by code", ["code"], registry=registry)
        self.ended = Counter("lastevent_jobs_ended", "Jobs ended here", ["status", "code"], registry=registry)

    def watch(self, writer: Writer, leases: Leases, running: Running, slots: int, reaper: Reaper, event_log: EventLog) -> None:
        """From here on a scrape also tells what these count."""

        def read() -> Iterator[Metric]:
            yield counters(
                "lastevent_tokens", "Output as it came, by kind", "kind",
                {KINDS[kind]: n for kind, n in self.tally.tokens.items()},
            )  # fmt: skip
            yield GaugeMetricFamily("lastevent_running_jobs", "Jobs that run here", len(running))
            yield GaugeMetricFamily("lastevent_slots", "Jobs that may run here at once", slots)
            yield histogram("lastevent_append_seconds", "Round trips that wrote to logs", writer.appends)
            yield GaugeMetricFamily("lastevent_waiting_events", "Events that are not in their log yet", writer.waiting)
            yield GaugeMetricFamily("lastevent_held_events", "Events held in case Redis forgets them", writer.held)
            yield counter("lastevent_rewritten_events", "Events that Redis forgot, written again", writer.rewritten)
            yield counter("lastevent_leases_lost", "Leases that another has, or nobody", leases.lost)
            yield counter("lastevent_reaped_jobs", "Jobs that had got stuck, moved or ended", reaper.moved)
            yield _closed(event_log)

        self.registry.register(Numbers(read))

    def opened(self, reason: StartReason) -> None:
        self.attempts.labels(reason).inc()

    def claimed(self, waited_s: float) -> None:
        """A job's first claim."""
        self.queue_s.labels(self._lane).observe(max(0.0, waited_s))

    def called(self, model: Model, took_s: float, first_s: float | None, usage: Usage, error: str) -> None:
        """A provider's call is over. `error` is the failure's code, `cancelled`, or empty."""
        labels = self._labels(model)
        self.call_s.labels(*labels, error).observe(took_s)
        if first_s is not None:
            self.first_chunk_s.labels(*labels).observe(first_s)
        self.usage.labels(*labels, "input").observe(usage.input_tokens)
        self.usage.labels(*labels, "output").observe(usage.output_tokens)

    def ended_job(self, model: Model, event: Terminal) -> None:
        """A job ended, by its owner."""
        labels, timing = self._labels(model), event.timing
        code = event.code if isinstance(event, Error) else ""
        self.ended.labels(final_status(event), code).inc()
        error = code or ("" if isinstance(event, Done) else "cancelled")
        if timing.total_s is not None:
            self.request_s.labels(*labels, error).observe(timing.total_s)
        if isinstance(event, Done) and timing.ttft_s is not None:
            self.first_token_s.labels(*labels).observe(timing.ttft_s)
        if isinstance(event, Done) and timing.tokens_per_s:
            self.output_token_s.labels(*labels).observe(1 / timing.tokens_per_s)

    def _labels(self, model: Model) -> tuple[str, str, str]:
        return "chat", model.provider, model.name if model.id in self._listed else "other"

    def _of_models(self, name: str, meaning: str, bounds: tuple[float, ...], *more: str) -> Histogram:
        return Histogram(name, meaning, [*_MODEL_LABELS, *more], buckets=bounds, registry=self.registry)


def _closed(event_log: EventLog) -> CounterMetricFamily:
    family = CounterMetricFamily("lastevent_jobs_closed", CLOSED, labels=["status", "code"])
    for (status, code), count in list(event_log.closed.items()):
        family.add_metric([status, code], count)
    return family
