"""shared/spread.py: values between bounds, and what can be said of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.operations import TTFT_BOUNDS
from shared.spread import Spread


def test_a_value_at_a_bound_is_not_above_it() -> None:
    """As Prometheus' `le` has it."""
    spread = Spread((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        spread.add(value)
    assert (spread.counts, spread.total) == ([2, 2, 1], 14.0)


def test_nothing_can_be_said_of_no_values() -> None:
    assert Spread((1.0,)).quantile(0.5) is None


def test_values_lie_evenly_between_two_bounds() -> None:
    spread = Spread((1.0, 2.0, 4.0))
    for value in (1.5, 1.5, 3.0, 3.0):
        spread.add(value)
    assert (spread.quantile(0.25), spread.quantile(0.5), spread.quantile(0.75), spread.quantile(1.0)) == (1.5, 2.0, 3.0, 4.0)


def test_what_is_above_all_bounds_counts_as_the_last() -> None:
    spread = Spread((1.0, 2.0))
    spread.add(100.0)
    assert spread.quantile(0.5) == 2.0


@given(st.lists(st.floats(0.001, 800), min_size=1, max_size=200), st.sampled_from([0.5, 0.9, 0.99]))
def test_the_bounds_of_the_first_token_tell_quantiles_to_a_quarter(values: list[float], part: float) -> None:
    spread = Spread(TTFT_BOUNDS)
    for value in values:
        spread.add(value)
    told = spread.quantile(part)
    assert told is not None
    rank = part * len(values)
    exact = sorted(values)[max(0, -int(-rank // 1) - 1)]
    assert told == pytest.approx(exact, rel=0.26, abs=0.001)
