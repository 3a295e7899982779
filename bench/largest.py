"""A search for the largest number that is still good, in few trials. No I/O."""

from collections.abc import Awaitable, Callable
from typing import Final

_STEP: Final = 1.5
_CLOSE: Final = 1.12
"""Two neighbours this near need no trial between them: the machine's own noise is larger."""


async def largest(is_good: Callable[[int], Awaitable[bool]], start: int, trials: int) -> int:
    """Up or down from `start` by half as much again until good and bad are found, then between the two; multiples of 100. The
    largest that was seen to be good, 0 when none was."""
    good, bad, size = 0, 0, start
    for _ in range(trials):
        if await is_good(size):
            good = size
        else:
            bad = size
        if bad and good and bad / good <= _CLOSE:
            break
        following = _between(good, bad) if good and bad else size * _STEP if good else size / _STEP
        size = max(100, round(following / 100) * 100)
        if size in (good, bad):
            break
    return good


def _between(good: int, bad: int) -> float:
    """Their geometric mean: crowds are compared by ratio."""
    return float((good * bad) ** 0.5)
