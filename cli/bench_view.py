"""What `lastevent bench` shows: a progress bar a row, the table, bars in the terminal, and the same as JSON or as a PNG."""

import importlib.util
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.bar import Bar
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cli.bench_runs import Added, Tally, added, best
from cli.output import harmless, print_line
from shared.errors import ConfigurationError

NOTHING: Final = "–"
BAR_WIDTH: Final = 40
CHARTS: Final = (("TTFT p50", "s"), ("tokens/s", ""))
"""What is drawn, and its unit."""


class BenchView:
    """Progress goes to stderr, and only where a person looks: a pipe gets the results alone."""

    def __init__(self, err: Console) -> None:
        self._err = err
        self._bars: dict[int, TaskID] = {}
        self._progress: Progress | None = None

    @contextmanager
    def progress(self, tallies: Sequence[Tally], runs: int) -> Iterator[None]:
        """A bar for each tally, while the block runs."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        disable = not self._err.is_terminal
        with Progress(
            *columns, TextColumn("{task.fields[last]}"), console=self._err, transient=True, disable=disable
        ) as progress:
            self._progress = progress
            self._bars = {id(tally): progress.add_task(escape(name_of(tally)), total=runs, last="") for tally in tallies}
            yield

    def advance(self, tally: Tally) -> None:
        """A run is over."""
        assert self._progress is not None, "within `progress`"
        failed = f"[red]{tally.failed.total()} failed[/]" if tally.failed else ""
        last = f"TTFT {tally.runs[-1].ttft_s:.3f} s" if tally.runs else ""
        self._progress.update(self._bars[id(tally)], completed=tally.done, last=f"{last} {failed}".strip())

    def print_results(self, out: Console, tallies: Sequence[Tally], *, chart: bool) -> None:
        """Table, what failed, what the queue adds, and bars."""
        out.print(_table(tallies))
        for tally in tallies:
            for code, n in tally.failed.most_common():
                print_line(out, f"[red]{n} failed[/]", f"{name_of(tally)}: {code}: {tally.last_words.get(code, code)}")
        for model, share in _added(tallies).items():
            line = f"the queue adds to {model}'s TTFT: p50 {share.p50_s * 1000:.1f} ms, p99 {share.p99_s * 1000:.1f} ms"
            print_line(out, "", line)
        if chart:
            _print_bars(out, tallies)


def name_of(tally: Tally) -> str:
    return harmless(tally.model) + (", directly" if tally.way == "direct" else "")


def as_json(tallies: Sequence[Tally], asked: dict[str, Any]) -> str:
    """One object: what was asked, and for each model and way its samples and what they add up to. Seconds."""
    shares = {model: msgspec.to_builtins(share) for model, share in _added(tallies).items()}
    results = [
        {
            "model": tally.model,
            "way": tally.way,
            "ttft_s": msgspec.to_builtins(tally.ttft()),
            "tokens_per_s": msgspec.to_builtins(tally.tokens_per_s()),
            "total_s": msgspec.to_builtins(tally.total()),
            "failed": dict(tally.failed),
            "runs": msgspec.to_builtins(tally.runs),
        }
        for tally in tallies
    ]
    return json.dumps({**asked, "results": results, "queue_adds": shares}, ensure_ascii=False, indent=2)


def check_chart(path: Path) -> None:
    """Raises ConfigurationError where there is nothing to draw with, or no such folder: before anything is paid for."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigurationError("--chart draws with matplotlib: pip install matplotlib, or leave it out for bars here")
    if not path.parent.is_dir():
        raise ConfigurationError(f"--chart: there is no folder {path.parent}")


def save_chart(path: Path, tallies: Sequence[Tally]) -> None:
    """Draws the bars into a PNG file."""
    from matplotlib.figure import Figure  # by itself, without pyplot, it needs no display

    figure = Figure(figsize=(10, 1.5 + 0.5 * len(tallies)), layout="constrained")
    for axes, (title, unit) in zip(figure.subplots(1, 2, sharey=True), CHARTS, strict=True):
        axes.barh([name_of(tally) for tally in tallies], [_drawn(tally)[title] or 0.0 for tally in tallies])
        axes.set_xlabel(f"{title}, {unit}" if unit else title)
    axes.invert_yaxis()  # shared by both: the first row on top
    figure.savefig(path, format="png")


def _table(tallies: Sequence[Tally]) -> Table:
    # Where it is narrow only the model's id is folded: a figure that is cut off is none.
    table = Table(header_style="dim", box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("model", overflow="fold")
    for column in ("TTFT\nmean s", "p50", "p99", "stdev", "tokens/s", "total s", "runs", "failed"):
        table.add_column(column, justify="right", no_wrap=True)
    soonest, fastest = best([tally for tally in tallies if tally.way == "queue"])
    for tally in tallies:
        ttft, speed, total = tally.ttft(), tally.tokens_per_s(), tally.total()
        table.add_row(
            escape(name_of(tally)),
            _seconds(ttft.mean if ttft else None),
            _marked(_seconds(ttft.p50 if ttft else None), tally is soonest),
            _seconds(ttft.p99 if ttft else None),
            _seconds(ttft.stdev if ttft else None),
            _marked(f"{speed.mean:.1f}" if speed else NOTHING, tally is fastest),
            _seconds(total.mean if total else None),
            str(len(tally.runs)),
            f"[red]{tally.failed.total()}[/]" if tally.failed else "0",
        )
    return table


def _marked(text: str, best: bool) -> str:
    return f"[bold green]★ {text}[/]" if best else text


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3f}"


def _added(tallies: Sequence[Tally]) -> dict[str, Added]:
    """What the queue adds, by model, where both ways were measured."""
    direct = {tally.model: tally for tally in tallies if tally.way == "direct"}
    pairs = [(tally, direct[tally.model]) for tally in tallies if tally.way == "queue" and tally.model in direct]
    return {queue.model: share for queue, beside in pairs if (share := added(queue, beside)) is not None}


def _drawn(tally: Tally) -> dict[str, float | None]:
    ttft, speed = tally.ttft(), tally.tokens_per_s()
    return {"TTFT p50": ttft.p50 if ttft else None, "tokens/s": speed.mean if speed else None}


def _print_bars(out: Console, tallies: Sequence[Tally]) -> None:
    for title, unit in CHARTS:
        values = [_drawn(tally)[title] for tally in tallies]
        most = max((value for value in values if value is not None), default=0.0)
        if most <= 0:
            continue
        grid = Table(
            title=f"{title}, {unit}" if unit else title, title_justify="left", title_style="dim", box=None, show_header=False
        )
        for tally, value in zip(tallies, values, strict=True):
            bar = Bar(most, 0, value or 0.0, width=BAR_WIDTH)
            grid.add_row(escape(name_of(tally)), bar, NOTHING if value is None else f"{value:.3g}")
        out.print(grid)
