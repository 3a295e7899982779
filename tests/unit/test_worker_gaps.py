"""worker/gaps.py: the time between one piece of output and the next, in bounded memory."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.gaps import Gaps


def of(*gaps_s: float) -> Gaps:
    gaps, now = Gaps(), 0.0
    gaps.piece(now)
    for gap in gaps_s:
        now += gap
        gaps.piece(now)
    return gaps


def test_without_two_pieces_there_is_no_gap() -> None:
    assert (Gaps().quantile(0.5), of().quantile(0.5)) == (None, None)


@given(st.lists(st.floats(20e-6, 1000), min_size=1, max_size=50), st.sampled_from([0.5, 0.99, 1.0]))
def test_a_quantile_is_2_5_percent_off_at_most(gaps_s: list[float], part: float) -> None:
    exact = sorted(gaps_s)[max(0, -int(-part * len(gaps_s) // 1) - 1)]
    assert of(*gaps_s).quantile(part) == pytest.approx(exact, rel=0.026, abs=1e-6)


def test_what_came_together_has_no_gap_and_a_very_long_one_is_a_long_one() -> None:
    assert of(0.0, 0.0, 0.0).quantile(0.5) == 0.0
    assert (of(1e6).quantile(0.5) or 0) > 1000


def test_one_slow_piece_in_a_hundred_is_the_worst_and_not_the_usual() -> None:
    gaps = of(*[0.02] * 98, 1.5, 1.5)
    assert gaps.quantile(0.5) == pytest.approx(0.02, rel=0.03)
    assert gaps.quantile(0.99) == pytest.approx(1.5, rel=0.03)


def test_a_long_answer_takes_no_more_memory_than_a_short_one() -> None:
    gaps = of(*[0.01] * 10)
    tracemalloc.start()
    try:
        for n in range(20_000):
            gaps.piece(1.0 + n * 0.01)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 1000
    assert gaps.quantile(0.5) == pytest.approx(0.01, rel=0.03)
