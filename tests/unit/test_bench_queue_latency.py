"""bench/queue_latency.py: the queue is held against stock arq, and against the best of those that are made to be prompt."""

from bench.figures import OURS, Row
from bench.queue_latency import STOCK, _targets


def rows(**p50: float) -> list[Row]:
    names = {"ours": OURS, "stock": STOCK}
    return [Row("idle worker", names.get(name, name), {"p50 ms": value}) for name, value in p50.items()]


def test_the_best_peer_counts() -> None:
    targets = _targets(rows(ours=2.0, stock=250.0, saq=2.4, streaq=4.0, taskiq=1.6))
    assert [(target.value, target.met) for target in targets] == [(0.008, True), (1.25, False)]


def test_without_them_only_arq_does() -> None:
    assert [target.value for target in _targets(rows(ours=2.0, stock=250.0))] == [0.008]
