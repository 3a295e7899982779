"""Findings for people and for machines: tables in the terminal, JSON files."""

import datetime
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from bench.cost import load, machine
from bench.figures import OURS, Finding, Row

QUIET_CORES: Final = 0.3
"""What a machine's own background may take before latencies tell more about it than about us."""
RESULTS: Final = Path(__file__).parent / "results"


def tables(finding: Finding) -> Iterator[Table]:
    """A row a server and case, a table for each set of figures; the last column: how many times ours the others are, by the
    figure that is compared."""
    for i, (names, rows) in enumerate(groupby(finding.rows, key=lambda row: _seen(finding, row))):
        title = f"{finding.letter}  {finding.title}" if i == 0 else None
        shown = Table(
            title=title, title_justify="left", title_style="bold", header_style="dim",
            box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False,
        )  # fmt: skip
        shown.add_column("case")
        shown.add_column("server")
        for name in names:
            shown.add_column(name, justify="right", no_wrap=True)
        compares = finding.compare in names
        if compares:
            shown.add_column("/ ours", justify="right", no_wrap=True)
        _fill(shown, finding, list(rows), names, compares=compares)
        yield shown


def _seen(finding: Finding, row: Row) -> tuple[str, ...]:
    return tuple(name for name in row.figures if name not in finding.unseen)


def _fill(shown: Table, finding: Finding, rows: list[Row], names: tuple[str, ...], *, compares: bool) -> None:
    case = None
    for row in rows:
        if case not in (None, row.case):
            shown.add_section()
        values = [number(row.figures[name]) for name in names]
        ratio = finding.ratio(row)
        times = ["" if ratio is None else f"× {number(ratio)}"] if compares else []
        style = "green" if row.server == OURS else None
        shown.add_row(row.case if row.case != case else "", row.server, *values, *times, style=style)
        case = row.case


def print_finding(console: Console, finding: Finding) -> None:
    console.print()
    for shown in tables(finding):
        console.print(shown)
    for target in finding.targets:
        mark = "[green]reached[/]" if target.met else "[red]missed[/] "
        bound = f"{'at least' if target.at_least else 'at most'} {number(target.bound)} {target.unit}".rstrip()
        console.print(f"  {mark}  {target.what}: {number(target.value)} {target.unit}".rstrip() + f", wanted {bound}")
    for line in finding.absent:
        console.print(f"  [yellow]absent[/]   {escape(line)}")
    if finding.others_cores is not None and finding.others_cores > QUIET_CORES:
        console.print(f"  [yellow]noisy[/]    others kept {finding.others_cores:.1f} cores busy meanwhile: times are too long")
    for note in finding.notes:
        console.print(f"  [dim]{note}[/]")


def save(findings: Sequence[Finding], *, quick: bool, load_before: float, path: Path) -> None:
    """Writes one file of results, over the one of the run before."""
    now = datetime.datetime.now(datetime.UTC)
    path.parent.mkdir(parents=True, exist_ok=True)
    run: dict[str, Any] = {
        "at": now.isoformat(timespec="seconds"),
        "quick": quick,
        "machine": machine(),
        "load_before": load_before,
        "load_after": load(),
        "findings": findings,
    }
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=1) + b"\n")


def number(value: float) -> str:
    """Three significant digits, and no more than a person reads."""
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
