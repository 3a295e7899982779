"""What a scenario found, as data: rows of figures, targets, notes. Percentiles. No I/O."""

from collections.abc import Sequence
from typing import Final

import msgspec

from cli.bench_runs import percentile

OURS: Final = "lastevent"


class Row(msgspec.Struct, frozen=True):
    """One server in one case. Figures are named with their unit: `p50 ms`."""

    case: str
    server: str
    figures: dict[str, float]


class Target(msgspec.Struct, frozen=True):
    """What was to be reached, and what was measured; `bound` is the largest value that is good, or with `at_least` the
    smallest."""

    what: str
    value: float
    bound: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.bound if self.at_least else self.value <= self.bound


class Finding(msgspec.Struct, frozen=True):
    """One scenario's outcome. `compare` names the figure by which the others are held against ours, case by case; `unseen` are
    figures for the file alone; `absent` says which peers are missing, and why; `others_cores` how many cores the rest of the
    machine kept busy meanwhile."""

    letter: str
    title: str
    rows: list[Row]
    compare: str
    targets: list[Target] = []
    notes: list[str] = []
    unseen: list[str] = []
    absent: list[str] = []
    others_cores: float | None = None

    def ratio(self, row: Row) -> float | None:
        """How many times ours this row's figure is; None for ours, and where ours is missing or nothing."""
        ours = next((r for r in self.rows if r.server == OURS and r.case == row.case), None)
        if row.server == OURS or ours is None:
            return None
        base, value = ours.figures.get(self.compare), row.figures.get(self.compare)
        return value / base if base and value is not None else None


def figure(rows: Sequence[Row], case: str, server: str, name: str) -> float | None:
    """One figure out of many rows; None when that server is not in that case."""
    return next((row.figures[name] for row in rows if (row.case, row.server) == (case, server) and name in row.figures), None)


def times_peer(
    rows: Sequence[Row], case: str, name: str, peer: str, bound: float, what: str, *, at_least: bool = False
) -> list[Target]:
    """The target that ours be at most, or at least, so many times the peer's; none when the peer is not there."""
    ours, theirs = figure(rows, case, OURS, name), figure(rows, case, peer, name)
    if ours is None or not theirs:
        return []
    return [Target(f"{what} / {peer}'s", float(f"{ours / theirs:.3g}"), bound, "", at_least)]


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """The figures of a latency: p50, p95, p99 in milliseconds, and of how many samples."""
    named = {f"p{percent} ms": round(percentile(seconds, percent) * 1000, 3) for percent in (50, 95, 99)}
    return {**named, "samples": len(seconds)}
