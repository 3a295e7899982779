"""A text against the words that were generated (tests/chaos/verdict.py): each way in which it can differ is seen."""

import pytest

from tests.chaos.verdict import Differences
from tests.support.truth import counted_text


def test_the_exact_text_differs_in_nothing() -> None:
    assert Differences.of(counted_text(12), 12) == (0, 0, 0)


@pytest.mark.parametrize(
    ("text", "differences"),
    [
        ("", (3, 0, 0)),
        ("w0 w2 ", (1, 0, 0)),
        ("w0 w1 w1 w2 ", (0, 1, 0)),
        ("w0 w2 w1 ", (0, 0, 1)),
        ("w0 w1 w0 w1 w2 ", (0, 2, 1)),
        ("w0 w1 w2 w3 ", (0, 0, 1)),  # more than was said
        ("w0 w1 w", (1, 0, 1)),
    ],
)
def test_what_is_not_exact_is_told(text: str, differences: tuple[int, int, int]) -> None:
    assert Differences.of(text, 3) == differences
