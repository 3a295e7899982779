"""What a reader holds against what was generated, and how long each kind of fault was felt. No I/O."""

from collections import Counter
from itertools import pairwise
from typing import NamedTuple

from rich.table import Table

from cli.bench_runs import percentile
from tests.chaos.plan import KINDS, Kind, Plan


class Differences(NamedTuple):
    """How a text differs from the `n` words that were generated; all 0 means that it is exact."""

    lost: int
    doubled: int
    disordered: int

    @classmethod
    def of(cls, text: str, n: int) -> "Differences":
        words = text.split(" ")
        rest = words.pop()
        times = Counter(words)
        known = [int(word[1:]) for word in words if word[:1] == "w" and word[1:].isdigit() and int(word[1:]) < n]
        lost = sum(f"w{i}" not in times for i in range(n))
        disordered = sum(before > after for before, after in pairwise(known)) + len(words) - len(known) + bool(rest)
        return cls(lost, sum(count - 1 for count in times.values()), disordered)


class Totals:
    """The run in numbers, as it goes."""

    def __init__(self) -> None:
        self.jobs = self.readers = self.ended = self.connections = self.attempts = self.rewinds = self.words = 0
        self.forgotten = 0
        """Jobs whose submit an `everysec` Redis forgot when it was killed (protocol P2); submitted again under their key."""
        self.lost = self.doubled = self.disordered = self.stuck = 0
        self.faults: list[str] = []
        """Whatever else is not as it must be, a line each."""

    def differ(self, differences: Differences) -> None:
        self.lost += differences.lost
        self.doubled += differences.doubled
        self.disordered += differences.disordered

    @property
    def are_zero(self) -> bool:
        return not (self.lost or self.doubled or self.disordered or self.stuck or self.faults)


class Felt:
    """How often each kind struck, and how long each reader that it concerned waited for its next token, in seconds."""

    def __init__(self) -> None:
        self.strokes: Counter[Kind] = Counter()
        self.waits: dict[Kind, list[float]] = {kind: [] for kind in KINDS}


def felt_table(felt: Felt, plan: Plan) -> Table:
    table = Table(title=f"Faults, seed {plan.seed}, {plan.seconds:g} s, lease {plan.lease_s:g} s", title_justify="left")
    table.add_column("fault")
    for name in ("struck", "readers", "p50 s", "p99 s", "longest s"):
        table.add_column(name, justify="right")
    for kind in KINDS:
        waits = felt.waits[kind]
        times = [percentile(waits, 50), percentile(waits, 99), max(waits)] if waits else []
        shown = [f"{seconds:.2f}" for seconds in times] or ["–"] * 3
        table.add_row(kind, str(felt.strokes[kind]), str(len(waits)), *shown)
    return table


def totals_table(totals: Totals) -> Table:
    table = Table(title="Readers against the truth", title_justify="left")
    for name in ("jobs", "readers", "connections", "attempts", "rewinds", "words", "forgotten (P2)"):
        table.add_column(name, justify="right")
    for name in ("lost", "doubled", "out of order", "stuck"):
        table.add_column(name, justify="right", style="bold")
    counts = (totals.jobs, totals.readers, totals.connections, totals.attempts, totals.rewinds, totals.words, totals.forgotten)
    zeros = (totals.lost, totals.doubled, totals.disordered, totals.stuck)
    table.add_row(*(f"{count:,}" for count in counts), *(f"[red]{n:,}[/]" if n else "[green]0[/]" for n in zeros))
    return table
