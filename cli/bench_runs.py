"""What `lastevent bench` measures, as data: runs, failures, and what they add up to. No I/O."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import msgspec

Way = Literal["queue", "direct"]
"""Through Lastevent, or straight to the provider through its own SDK."""


class Run(msgspec.Struct, frozen=True):
    """One whole answer, by the caller's own clock. Seconds, from before the request; `tokens_per_s` from the first piece to
    the last, None where all came at once."""

    ttft_s: float
    total_s: float
    output_tokens: int
    tokens_per_s: float | None


class Spread(msgspec.Struct, frozen=True):
    """`stdev` is None for a single value."""

    mean: float
    p50: float
    p99: float
    stdev: float | None


class Tally(msgspec.Struct):
    """The runs of one model, one way. `failed` counts by code; `last_words` is what the last failure of a code said."""

    model: str
    way: Way
    runs: list[Run] = []
    failed: Counter[str] = msgspec.field(default_factory=Counter)
    last_words: dict[str, str] = {}

    def fail(self, code: str, message: str = "") -> None:
        self.failed[code] += 1
        if message:
            self.last_words[code] = message

    @property
    def done(self) -> int:
        """Runs that are over, well or not."""
        return len(self.runs) + self.failed.total()

    def ttft(self) -> Spread | None:
        return spread([run.ttft_s for run in self.runs])

    def total(self) -> Spread | None:
        return spread([run.total_s for run in self.runs])

    def tokens_per_s(self) -> Spread | None:
        return spread([run.tokens_per_s for run in self.runs if run.tokens_per_s is not None])


class Added(msgspec.Struct, frozen=True):
    """What the queue adds to the time to the first token: each run's less the median of the direct calls beside it."""

    p50_s: float
    p99_s: float


class Clock:
    """Reads one answer's times. `now` in seconds of any monotonic clock."""

    def __init__(self, now: float) -> None:
        self._begun = now
        self._first: float | None = None
        self._last = now

    def piece(self, now: float) -> None:
        """A piece of output came."""
        self._first = now if self._first is None else self._first
        self._last = now

    def end(self, now: float, output_tokens: int) -> Run | None:
        """The run, now that the answer is whole; None where it had no output at all."""
        if self._first is None:
            return None
        span = self._last - self._first
        speed = (output_tokens - 1) / span if span > 0 and output_tokens > 1 else None
        return Run(self._first - self._begun, now - self._begun, output_tokens, speed)


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: a value that was measured, never one between two.

    Raises:
        ValueError: there are no values.
    """
    if not values:
        raise ValueError("no values to take a percentile of")
    ordered = sorted(values)
    rank = max(1, -(-len(ordered) * percent // 100))
    return ordered[int(rank) - 1]


def spread(values: Sequence[float]) -> Spread | None:
    """None where there is nothing to spread."""
    if not values:
        return None
    stdev = statistics.stdev(values) if len(values) > 1 else None
    return Spread(statistics.fmean(values), percentile(values, 50), percentile(values, 99), stdev)


def added(queue: Tally, direct: Tally) -> Added | None:
    """None where one of the two has no run that went well."""
    if not queue.runs or not direct.runs:
        return None
    median = percentile([run.ttft_s for run in direct.runs], 50)
    shares = [run.ttft_s - median for run in queue.runs]
    return Added(percentile(shares, 50), percentile(shares, 99))


def best(tallies: Sequence[Tally]) -> tuple[Tally | None, Tally | None]:
    """The tally with the least median TTFT and the one with the most tokens/s; None where there is nothing to choose from."""
    by_ttft = [(spread.p50, i) for i, tally in enumerate(tallies) if (spread := tally.ttft())]
    by_speed = [(-spread.mean, i) for i, tally in enumerate(tallies) if (spread := tally.tokens_per_s())]
    return _first(tallies, by_ttft), _first(tallies, by_speed)


def _first(tallies: Sequence[Tally], ranked: list[tuple[float, int]]) -> Tally | None:
    return tallies[min(ranked)[1]] if len(ranked) > 1 else None
