"""web/metrics.py: Prometheus text of what the process counts."""

from web.metrics import Metrics


def test_the_numbers_are_those_of_the_moment() -> None:
    readers = 2
    metrics = Metrics(readers=lambda: readers, streams=lambda: 1, deliveries=lambda: 40)
    metrics.submits.labels("openai").inc()
    metrics.streams_opened.labels("yes").inc()
    assert "lastevent_readers 2.0" in metrics.render().decode()

    readers = 3
    text = metrics.render().decode()

    assert "lastevent_readers 3.0" in text
    assert "lastevent_followed_jobs 1.0" in text
    assert "# TYPE lastevent_deliveries_total counter" in text
    assert "lastevent_deliveries_total 40.0" in text
    assert 'lastevent_submits_total{provider="openai"} 1.0' in text
    assert 'lastevent_streams_opened_total{resumed="yes"} 1.0' in text
    assert "_created" not in text
