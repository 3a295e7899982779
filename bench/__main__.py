"""`python -m bench`: runs the scenarios, prints their tables, writes bench/results/<scenario>.json and a chart of it all."""

import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Final

import msgspec
import typer
import uvloop
from rich.console import Console

from bench import fan_out, first_token, log_cost, many_streams, queue_latency, replays, worker_load
from bench.cost import load, machine
from bench.figures import Finding
from bench.report import print_finding, save
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
}
"""In the order in which they run."""

console = Console(width=None if sys.stdout.isatty() else 120)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    only: Annotated[str, typer.Option(help=f"Scenarios, comma-separated, of {', '.join(SCENARIOS)}.")] = "",
    quick: Annotated[bool, typer.Option("--quick", help="Fewer samples: about a minute, and noisier.")] = False,
    output: Annotated[Path | None, typer.Option(help="Where the results go; by default bench/results/<date>.json.")] = None,
) -> None:
    """What is fast, and against what, in one run: everything beside its alternative, because machines are noisy."""
    letters = [letter.strip().lower() for letter in only.split(",") if letter.strip()] or list(SCENARIOS)
    unknown = [letter for letter in letters if letter not in SCENARIOS]
    if unknown:
        raise typer.BadParameter(f"there is no scenario {unknown[0]!r}; there are {', '.join(SCENARIOS)}", param_hint="--only")
    _raise_file_limit()
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_run(letters, quick=quick, output=output))
    except (BenchFailed, ConfigurationError) as error:
        console.print(f"bench: {error}", style="red", markup=False)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, asyncio.CancelledError) as stopped:
        console.print("bench: stopped; nothing is left running, nothing was written")
        raise typer.Exit(130 if isinstance(stopped, KeyboardInterrupt) else 143) from None


async def _run(letters: list[str], *, quick: bool, output: Path | None) -> None:
    myself = asyncio.current_task()
    assert myself is not None, "run by a runner"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, myself.cancel)
    load_before = load()
    about = machine()
    console.print(
        f"{about['cores']} cores of {about['cpu']}, {about['system']}, Python {about['python']}, "
        f"Redis {about['redis-server']}, load {load_before:g}"
    )
    findings = []
    for letter in letters:
        with console.status("", spinner="dots") as status:
            say = status.update if console.is_terminal else _say_seldom()
            async with Stage(quick=quick, say=say) as stage:
                finding = await stage.run(SCENARIOS[letter])
        findings.append(msgspec.structs.replace(finding, others_cores=round(stage.others_cores, 2)))
        print_finding(console, findings[-1])
    path = save(findings, quick=quick, load_before=load_before, path=output)
    with contextlib.suppress(ValueError):  # outside the working folder it is shown whole
        path = path.relative_to(Path.cwd())
    console.print(f"\n{path}")


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
