"""`python -m bench`: runs the scenarios, prints their tables, writes bench/results/<scenario>.json and a chart of it all."""

import asyncio
import resource
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
import uvloop
from rich.console import Console

from bench import (
    fan_out,
    first_token,
    growth,
    local_engine,
    log_cost,
    many_streams,
    queue_latency,
    replays,
    worker_load,
)
from bench.chart import INSTALL, bars, can_draw, draw, groups
from bench.cost import load, machine
from bench.figures import Finding
from bench.report import RESULTS, print_finding, save
from bench.stage import BenchFailed, Stage
from shared.errors import ConfigurationError

SCENARIOS: Final[dict[str, Callable[[Stage], Coroutine[None, None, Finding]]]] = {
    "c": queue_latency.run,
    "c2": first_token.run,
    "a": fan_out.run,
    "b": many_streams.run,
    "d": replays.run,
    "e": log_cost.run,
    "w": worker_load.run,
    "f": local_engine.run,
    "g": growth.run,
}
"""In the order in which they run."""

console = Console(width=None if sys.stdout.isatty() else 120)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    only: Annotated[str, typer.Option(help=f"Scenarios, comma-separated, of {', '.join(SCENARIOS)}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples: about two minutes, and noisier.")] = False,
    full: Annotated[bool, typer.Option("--full", help="Every peer, every load taken apart, longer searches.")] = False,
    output: Annotated[Path | None, typer.Option(help="One more file, for the results of all these scenarios together.")] = None,
) -> None:
    """What is fast, and against what, in one run: everything beside its alternative, because machines are noisy.

    Each scenario's results go to bench/results/<scenario>.json, a chart of them all to bench/results/chart.png.
    """
    letters = [letter.strip().lower() for letter in only.split(",") if letter.strip()] or list(SCENARIOS)
    unknown = [letter for letter in letters if letter not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"there is no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}", param_hint="--only")
    if quick and full:
        raise typer.BadParameter("either --quick or --full", param_hint="--full")
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            all_went_well = runner.run(_run(letters, quick=quick, full=full, output=output))
    except ConfigurationError as error:
        console.print(f"bench: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, asyncio.CancelledError) as stopped:
        console.print("bench: stopped; nothing is left running, and of the scenario that ran nothing was written")
        raise typer.Exit(130 if isinstance(stopped, KeyboardInterrupt) else 143) from None
    if not all_went_well:
        raise typer.Exit(1)


async def _run(letters: list[str], *, quick: bool, full: bool, output: Path | None) -> bool:
    """Whether every scenario came to its end. One that fails is said, and the others run."""
    myself = asyncio.current_task()
    assert myself is not None, "run by a runner"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, myself.cancel)
    load_before, begun = load(), time.monotonic()
    about = machine()
    console.print(
        f"{about['cores']} cores of {about['cpu']}, {about['system']}, Python {about['python']}, "
        f"Redis {about['redis-server']}, load {load_before:g}"
    )
    findings: dict[str, Finding] = {}
    for letter in letters:
        try:
            finding = await _find(letter, quick=quick, full=full)
        except BenchFailed as failed:
            console.print(f"\nbench: scenario {letter}: {failed}", style="red", markup=False)
            continue
        findings[letter] = finding
        print_finding(console, finding)
        save([finding], quick=quick, load_before=load_before, path=RESULTS / f"{letter}.json")
    if output is not None:
        save([*findings.values()], quick=quick, load_before=load_before, path=output)
    _print_charts([*findings.values()])
    files = ", ".join(f"{_near(RESULTS)}/{letter}.json" for letter in findings)
    console.print(f"\n{files}; {time.monotonic() - begun:.0f} s")
    return len(findings) == len(letters)


async def _find(letter: str, *, quick: bool, full: bool) -> Finding:
    with console.status("", spinner="dots") as status:
        say = status.update if console.is_terminal else _say_seldom()
        async with Stage(quick=quick, full=full, say=say) as stage:
            finding = await stage.run(SCENARIOS[letter])
    return msgspec.structs.replace(finding, others_cores=round(stage.others_cores, 2))


def _print_charts(findings: list[Finding]) -> None:
    shown = groups(findings)
    for group in shown:
        console.print()
        console.print(bars(group))
    if not shown:
        return
    if can_draw():
        draw(shown, RESULTS / "chart.png")
        console.print(f"\n{_near(RESULTS / 'chart.png')}")
    else:
        console.print(f"\nno {_near(RESULTS / 'chart.png')}: {INSTALL}", style="yellow")


def _near(path: Path) -> Path:
    """As seen from the working folder, where it lies below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _say_seldom() -> Callable[[str], None]:
    """Without a terminal: a line when the subject changes, not one a step."""
    last = ""

    def say(text: str) -> None:
        nonlocal last
        subject = text.partition(":")[0]
        if subject != last:
            last = subject
            console.print(f"… {subject}")

    return say


def _raise_file_limit() -> None:
    """A thousand readers are a thousand sockets, twice with a Redis connection each; children inherit it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    app()
