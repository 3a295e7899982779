"""docs/OPERATIONS.md lists every metric that `/metrics` gives, and no other."""

from collections.abc import Callable, Iterable
from typing import Any, Final, cast

import pytest
from prometheus_client import CollectorRegistry

from shared.event_log import EventLog
from shared.job_store import JobStore
from shared.loop_lag import LoopLag
from shared.settings import Settings
from tests.architecture.test_docs import code_words, page, table_after
from web.hub import Hub
from web.metrics import Metrics
from worker.control import Running
from worker.leases import Leases
from worker.main import new_identity
from worker.metrics import WorkerMetrics
from worker.reaper import Reaper
from worker.upstreams import Upstreams
from worker.writer import Writer

NO_REDIS: Final = cast(Any, None)


def listed(tier: str) -> dict[str, str]:
    """Name → type, of those that a tier is said to give."""
    rows = table_after(page("OPERATIONS.md"), "## Watching it run")
    return {code_words(name)[0]: kind for name, kind, of, _, _ in rows if of in (tier, "both")}


def given(registry: CollectorRegistry) -> dict[str, str]:
    """As Prometheus names them."""
    suffixes, types = {"counter": "_total", "info": "_info"}, {"info": "gauge"}
    return {f"{f.name}{suffixes.get(f.type, '')}": types.get(f.type, f.type) for f in registry.collect()}


def the_webs() -> CollectorRegistry:
    settings = Settings()
    log = EventLog(NO_REDIS, settings)
    return Metrics(Hub(NO_REDIS, log, settings), LoopLag(), NO_REDIS, JobStore(NO_REDIS, log), settings.lanes)._registry


def the_workers() -> CollectorRegistry:
    settings = Settings()
    metrics, log, running = WorkerMetrics(settings, "api", LoopLag()), EventLog(NO_REDIS, settings), Running()
    leases = Leases(NO_REDIS, settings, new_identity(settings, "api"), running)
    reaper = Reaper(NO_REDIS, settings, log, JobStore(NO_REDIS, log), Upstreams(NO_REDIS, {}, "api"), "api", "w1")
    metrics.watch(Writer(NO_REDIS, settings, leases), leases, running, 8, reaper, log)
    return metrics.registry


@pytest.mark.parametrize(("tier", "registry_of"), [("web", the_webs), ("worker", the_workers)])
def test_the_table_is_what_is_given(tier: str, registry_of: Callable[[], CollectorRegistry]) -> None:
    assert given(registry_of()) == listed(tier)


def test_alerts_name_metrics_that_exist() -> None:
    known = {**listed("web"), **listed("worker")}
    section = page("OPERATIONS.md").split("## Watching it run", 1)[1]
    alerts = [cells[0] for cells in table_after("## alerts\n" + section.split("as PromQL:\n", 1)[1], "## alerts")]
    named = {word for alert in alerts for word in _metric_names(alert)}
    assert named
    assert {word.removesuffix("_bucket") for word in named} <= set(known)


def _metric_names(alert: str) -> Iterable[str]:
    words = "".join(letter if letter.isalnum() or letter == "_" else " " for letter in alert).split()
    return (word for word in words if word.startswith(("lastevent_", "gen_ai_")))
