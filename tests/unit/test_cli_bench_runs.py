"""cli/bench_runs.py: from the times of one answer to what is in the table."""

import pytest

from cli.bench_runs import Added, Clock, Run, Spread, Tally, added, best, percentile, spread


def run(ttft_s: float, tokens_per_s: float | None = 10.0) -> Run:
    return Run(ttft_s, ttft_s + 1, 11, tokens_per_s)


def test_a_percentile_is_a_value_that_was_measured() -> None:
    values = [5.0, 1.0, 4.0, 2.0, 3.0]
    assert percentile(values, 50) == 3.0
    assert percentile(values, 99) == 5.0
    assert percentile(values, 1) == 1.0
    assert percentile([7.0], 50) == 7.0


def test_there_is_no_percentile_of_nothing() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 50)


def test_a_spread_of_one_value_has_no_deviation() -> None:
    assert spread([2.0]) == Spread(2.0, 2.0, 2.0, None)
    assert spread([1.0, 3.0]) == Spread(2.0, 1.0, 3.0, 2**0.5)
    assert spread([]) is None


def test_speed_is_from_the_first_piece_to_the_last() -> None:
    """So the wait for the first piece, and for the end, slows no model down."""
    clock = Clock(100.0)
    for now in (103.0, 104.0, 105.0):
        clock.piece(now)
    assert clock.end(109.0, 21) == Run(ttft_s=3.0, total_s=9.0, output_tokens=21, tokens_per_s=10.0)


def test_an_answer_that_came_at_once_has_no_speed() -> None:
    clock = Clock(0.0)
    clock.piece(1.0)
    assert clock.end(2.0, 30) == Run(1.0, 2.0, 30, None)


def test_an_answer_without_output_is_no_run() -> None:
    assert Clock(0.0).end(2.0, 0) is None


def test_failures_are_over_too_and_counted_by_code() -> None:
    tally = Tally("openai/m", "queue", [run(1.0)])
    for said in ("first", "second"):
        tally.fail("timeout", said)
    assert (tally.done, tally.failed, tally.last_words) == (3, {"timeout": 2}, {"timeout": "second"})
    assert Tally("openai/m", "queue").done == 0


def test_the_queue_adds_what_its_runs_take_longer_than_the_median_direct_call() -> None:
    queue = Tally("m", "queue", [run(1.5), run(1.75), run(4.0)])
    direct = Tally("m", "direct", [run(0.9), run(1.0), run(9.0)])
    assert added(queue, direct) == Added(0.75, 3.0)
    assert added(queue, Tally("m", "direct")) is None


def test_the_best_are_found_each_by_itself() -> None:
    soon, fast, failed = Tally("a", "queue", [run(1.0)]), Tally("b", "queue", [run(2.0, 50.0)]), Tally("c", "queue")
    assert best([failed, fast, soon]) == (soon, fast)


def test_one_alone_is_not_the_best() -> None:
    assert best([Tally("a", "queue", [run(1.0)]), Tally("c", "queue")]) == (None, None)
