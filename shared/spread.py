"""How values lie: counted between fixed bounds, in plain numbers, so that counting one costs next to nothing. No I/O."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate


class Spread:
    """`counts[i]` values lie above `bounds[i - 1]` and not above `bounds[i]`; the last of them above all bounds."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """`bounds` rise."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0
        """The sum of all values."""

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def quantile(self, part: float) -> float | None:
        return quantile_of(self.bounds, self.counts, part)


def quantile_of(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """The value that so large a part of them do not exceed, as if they lay evenly between two bounds; None if there are none.

    Values above all bounds count as the last bound.
    """
    up_to = list(accumulate(counts))
    if not up_to[-1]:
        return None
    rank = part * up_to[-1]
    i = min(bisect_left(up_to, rank), len(bounds))
    if i == len(bounds):
        return bounds[-1]
    low, before = (bounds[i - 1], up_to[i - 1]) if i else (0.0, 0)
    return low + (bounds[i] - low) * (rank - before) / counts[i]
