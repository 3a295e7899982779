"""web/metrics.py: Prometheus text of what the process counts, and of the lanes, whether Redis answers or not."""

from types import SimpleNamespace
from typing import Any, cast

from redis.exceptions import ConnectionError as RedisConnectionError

from shared.loop_lag import LoopLag
from web.hub import Hub
from web.metrics import Metrics
from web.traffic import Traffic


class FakeHub:
    def __init__(self) -> None:
        self.traffic = Traffic()
        self.readers, self.followed, self.frames = 2, 1, 70

    def __len__(self) -> int:
        return self.readers


async def _away() -> list[Any]:
    raise RedisConnectionError("refused")


def metrics_of(hub: FakeHub) -> Metrics:
    store = SimpleNamespace(workers=_away)
    return Metrics(cast(Hub, hub), LoopLag(), cast(Any, None), cast(Any, store), ("api",))


async def test_the_numbers_are_those_of_the_moment() -> None:
    hub = FakeHub()
    metrics = metrics_of(hub)
    metrics.submits.labels("openai").inc()
    metrics.streams_opened.labels("yes").inc()
    hub.traffic.deliveries, hub.traffic.size = 4, 400
    hub.traffic.reconnects["the log is gone"] += 1
    assert "lastevent_readers 2.0" in (await metrics.scrape()).decode()

    hub.readers = 3
    text = (await metrics.scrape()).decode()

    assert "lastevent_readers 3.0" in text
    assert "lastevent_followed_jobs 1.0" in text
    assert "# TYPE lastevent_deliveries_total counter" in text
    assert "lastevent_deliveries_total 4.0" in text
    assert "lastevent_frame_bytes_total 400.0" in text
    assert "lastevent_frames_total 70.0" in text
    assert 'lastevent_reconnects_total{reason="the_log_is_gone"} 1.0' in text
    assert 'lastevent_submits_total{provider="openai"} 1.0' in text
    assert 'lastevent_streams_opened_total{resumed="yes"} 1.0' in text
    assert "_created" not in text


async def test_a_redis_that_is_away_costs_the_lanes_and_nothing_else() -> None:
    text = (await metrics_of(FakeHub()).scrape()).decode()
    assert "lastevent_redis_up 0.0" in text
    assert "lastevent_queue_depth{" not in text
    assert "lastevent_loop_lag_seconds_count" in text
