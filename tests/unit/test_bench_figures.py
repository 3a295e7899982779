"""How the bench counts: spreads, ratios, targets."""

from bench.figures import OURS, Finding, Row, Target, figure, spread, times_peer


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


def test_a_target_that_wants_more_is_met_from_its_bound_on() -> None:
    assert Target("crowd", 2.0, 2.0, "", at_least=True).met
    assert not Target("crowd", 1.9, 2.0, "", at_least=True).met


def test_a_target_by_a_peer_is_a_ratio_and_none_where_the_peer_is_missing() -> None:
    rows = [Row("100", OURS, {"CPU": 9.0}), Row("100", "Nchan", {"CPU": 8.0}), Row("1", "Nchan", {"CPU": 8.0})]
    (target,) = times_peer(rows, "100", "CPU", "Nchan", 1.2, "CPU")
    assert (target.what, target.value, target.met) == ("CPU / Nchan's", 1.12, True)
    assert times_peer(rows, "100", "CPU", "tutorial", 0.1, "CPU") == []
    assert times_peer(rows, "1", "CPU", "Nchan", 1.2, "CPU") == []
    assert figure(rows, "1", "Nchan", "p99 ms") is None
