"""How the bench counts: spreads, ratios, targets."""

from bench.figures import OURS, Finding, Row, Target, spread


def test_a_spread_is_in_milliseconds() -> None:
    assert spread([0.001, 0.002, 0.003]) == {"p50 ms": 2.0, "p95 ms": 3.0, "p99 ms": 3.0, "samples": 3}


def test_the_others_are_held_against_ours_case_by_case() -> None:
    ours, other = Row("idle", OURS, {"p50 ms": 2.0}), Row("idle", "other", {"p50 ms": 5.0})
    alone = Row("busy", "other", {"p50 ms": 9.0})
    without = Row("idle", "silent", {})
    finding = Finding("X", "x", [ours, other, alone, without], compare="p50 ms")
    assert [finding.ratio(row) for row in finding.rows] == [None, 2.5, None, None]


def test_a_target_is_met_up_to_its_bound() -> None:
    assert Target("p50", 2.5, 2.5, "ms").met
    assert not Target("p50", 2.51, 2.5, "ms").met
