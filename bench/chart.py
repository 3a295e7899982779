"""What a run found, as bars: in the terminal always, in a PNG file where matplotlib is at hand."""

import importlib.util
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple

from rich.table import Table

from bench.figures import OURS, Finding
from bench.report import number

INSTALL: Final = "pip install matplotlib"
_BAR: Final = 40
"""Characters."""
_ACROSS: Final = 3
_OURS, _OTHERS = "#2a9d5c", "#9aa5b1"


class Group(NamedTuple):
    """One case of one scenario: the figure by which its servers are compared, server by server."""

    title: str
    values: list[tuple[str, float]]


def groups(findings: Sequence[Finding]) -> list[Group]:
    """Every case in which ours stands beside others."""
    found = []
    for finding in findings:
        for case, rows in groupby(finding.rows, key=lambda row: row.case):
            values = [(row.server, row.figures[finding.compare]) for row in rows if finding.compare in row.figures]
            if len(values) > 1 and any(server == OURS for server, _ in values):
                found.append(Group(f"{finding.letter}  {case}: {finding.compare}", values))
    return found


def bars(group: Group) -> Table:
    """Less is better everywhere: the shortest bar wins."""
    shown = Table.grid(padding=(0, 1))
    shown.title, shown.title_justify, shown.title_style = group.title, "left", "bold"
    longest = max(value for _, value in group.values) or 1.0
    for server, value in group.values:
        bar = "█" * max(1, round(_BAR * value / longest))
        shown.add_row(server, bar, number(value), style="green" if server == OURS else None)
    return shown


def can_draw() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def draw(shown: Sequence[Group], path: Path) -> None:
    """Draws all of them into a PNG file."""
    from matplotlib.figure import Figure  # by itself, without pyplot, it needs no display

    down = -(-len(shown) // _ACROSS)
    figure = Figure(figsize=(5.5 * _ACROSS, 2.2 * down), layout="constrained")
    for axes, group in zip(figure.subplots(down, _ACROSS, squeeze=False).flat, shown, strict=False):
        servers, values = zip(*group.values, strict=True)
        drawn = axes.barh(servers, values, color=[_OURS if server == OURS else _OTHERS for server in servers])
        axes.bar_label(drawn, labels=[number(value) for value in values], padding=3, fontsize=8)
        axes.set_title(group.title, loc="left", fontsize=9)
        axes.margins(x=0.15)
        axes.invert_yaxis()  # the first row on top
        axes.tick_params(labelsize=8)
    for axes in figure.axes[len(shown) :]:
        axes.set_visible(False)
    figure.savefig(path, format="png", dpi=120)
