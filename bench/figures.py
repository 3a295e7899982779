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
    """What was to be reached, and what was measured; `most` is the largest value that is good."""

    what: str
    value: float
    most: float
    unit: str

    @property
    def met(self) -> bool:
        return self.value <= self.most


class Finding(msgspec.Struct, frozen=True):
    """One scenario's outcome. `compare` names the figure by which the others are held against ours, case by case;
    `others_cores` says how many cores the rest of the machine kept busy meanwhile."""

    letter: str
    title: str
    rows: list[Row]
    compare: str
    targets: list[Target] = []
    notes: list[str] = []
    others_cores: float | None = None

    def ratio(self, row: Row) -> float | None:
        """How many times ours this row's figure is; None for ours, and where ours is missing or nothing."""
        ours = next((r for r in self.rows if r.server == OURS and r.case == row.case), None)
        if row.server == OURS or ours is None:
            return None
        base, value = ours.figures.get(self.compare), row.figures.get(self.compare)
        return value / base if base and value is not None else None


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """The figures of a latency: p50, p95, p99 in milliseconds, and of how many samples."""
    named = {f"p{percent} ms": round(percentile(seconds, percent) * 1000, 3) for percent in (50, 95, 99)}
    return {**named, "samples": len(seconds)}
