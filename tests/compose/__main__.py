"""`tests/compose/run`: brings it up, shows what goes on, prints what came of it. Exit code 1: something was lost or refused."""

import asyncio
import contextlib
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import httpx2
import typer
from playwright.async_api import Page, async_playwright
from rich.console import Console
from rich.table import Table

from cli.bench_runs import percentile
from tests.chaos.verdict import Differences
from tests.compose.check import Check, Plan
from tests.compose.project import CommandFailed, Project
from tests.support.browser import CHROMIUM, FLAGS
from tests.support.openai_server import OpenAIServer
from tests.support.waiting import wait_until

_COUNT: Final = "from worker.tokens import load_encoding; print(len(load_encoding().encode('Tell me about lighthouses.')))"
"""Tokens of a prompt, by the encoding that the image carries."""

console = Console(width=None if sys.stdout.isatty() else 140)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    workers: Annotated[int, typer.Option(min=2, help="Containers of the lane api.")] = 4,
    jobs: Annotated[int, typer.Option(min=8, help="Jobs that stream while things are struck, with two readers each.")] = 40,
    words: Annotated[int, typer.Option(min=100, help="How many words each says.")] = 2400,
    per_second: Annotated[float, typer.Option(min=1, help="And how fast.")] = 20,
    local: Annotated[bool, typer.Option(help="With worker-local, whose image takes minutes and gigabytes.")] = True,
    lame_duck: Annotated[float | None, typer.Option(help="LASTEVENT_LAME_DUCK_S; without it the file's own.")] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave it running at the end.")] = False,
) -> None:
    """Brings up docker-compose.yml as it stands, strikes it, and compares every reader's text with what was generated."""
    plan = Plan(jobs, 3 if local else 0, words, per_second)
    try:
        fine = asyncio.run(_run(plan, workers, lame_duck, keep=keep))
    except CommandFailed as failed:
        console.print(f"compose: {failed}", style="red", markup=False)
        raise typer.Exit(1) from None
    except (KeyboardInterrupt, asyncio.CancelledError) as stopped:
        console.print("compose: stopped; nothing is left running")
        raise typer.Exit(130 if isinstance(stopped, KeyboardInterrupt) else 143) from None
    if not fine:
        raise typer.Exit(1)


async def _run(plan: Plan, workers: int, lame_duck: float | None, *, keep: bool) -> bool:
    myself = asyncio.current_task()
    assert myself is not None, "run by a runner"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, myself.cancel)
    async with OpenAIServer(host="0.0.0.0") as upstream:  # containers come by the bridge's address
        settings = {"OPENAI_BASE_URL": f"http://host.docker.internal:{upstream.port}/v1", "OPENAI_API_KEY": "sk-scripted"}
        settings |= {} if lame_duck is None else {"LASTEVENT_LAME_DUCK_S": f"{lame_duck:g}"}
        settings |= {} if plan.local_jobs else {"LASTEVENT_LANES": "api"}
        async with Project(settings, keep=keep) as project, _client() as http, _page() as page:
            await _bring_up(project, http, plan, workers)
            check = Check(project, http, page, plan)
            await check.run()
            differences = await check.judge()
            await _count_offline(project, check)
    _print(check, differences)
    return not (any(differences) or check.wrong)


def _client() -> httpx2.AsyncClient:
    return httpx2.AsyncClient(timeout=30, limits=httpx2.Limits(max_connections=None))


@asynccontextmanager
async def _page() -> AsyncIterator[Page]:
    """A page of a browser that takes the proxy's own certificate."""
    if CHROMIUM is None:
        raise CommandFailed("there is no chromium on PATH; on Debian: apt-get install chromium")
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = await browser.new_context(ignore_https_errors=True)
        yield await context.new_page()
        await browser.close()


async def _bring_up(project: Project, http: httpx2.AsyncClient, plan: Plan, workers: int) -> None:
    words = ["--scale", f"worker={workers}", *([] if plan.local_jobs else ["proxy", "web", "worker"])]
    console.print(f"compose: up --build --detach {' '.join(words)}")
    began = time.monotonic()
    await project.compose("up", "--build", "--detach", *words)
    up = time.monotonic()

    async def ready() -> bool:
        with contextlib.suppress(httpx2.TransportError):
            live = (await http.get(f"{project.url}/v1/workers")).json().get("data", [])
            return len(live) == workers + bool(plan.local_jobs)
        return False

    await wait_until(ready, timeout=180, message="every worker is live")
    console.print(f"compose: built and started in {up - began:.0f} s, every worker live {time.monotonic() - up:.0f} s later")


async def _count_offline(project: Project, check: Check) -> None:
    """tiktoken's encoding is in the image: it counts without a network."""
    try:
        await project.docker("run", "--rm", "--network", "none", "lastevent-worker", "python", "-c", _COUNT)
    except CommandFailed as failed:
        check.wrong.append(f"tiktoken without a network: {failed}")


def _print(check: Check, differences: Differences) -> None:
    console.print(_strikes_table(check))
    console.print(_readers_table(check, differences))
    for line in check.wrong:
        console.print(f"  {line}", style="red", markup=False)


def _strikes_table(check: Check) -> Table:
    table = Table(title="Strikes, and how long readers then had no new token", title_justify="left")
    for name in ("strike", "p50 s", "longest s", "submits meanwhile, ten a second"):
        table.add_column(name, justify="left" if name == "strike" else "right")
    for strike in check.strikes:
        times = f"{percentile(strike.waits, 50):.1f}", f"{max(strike.waits):.1f}"
        table.add_row(strike.name, *times, str(strike.calls) if strike.calls else "–")
    return table


def _readers_table(check: Check, differences: Differences) -> Table:
    table = Table(title="Readers against the truth", title_justify="left")
    for name in ("jobs", "readers", "connections", "local readers", "EventSources", "their answers", "by"):
        table.add_column(name, justify="right")
    for name in ("lost", "doubled", "out of order"):
        table.add_column(name, justify="right", style="bold")
    connections = sum(reading.reader.connections for reading in check.readings)
    answers = sum(reader.opens for reader in check.native)
    counts = (check.plan.jobs, len(check.readings), connections, len(check.local_readings), len(check.native), answers)
    table.add_row(*map(str, counts), check.protocol, *map(str, differences))
    return table


if __name__ == "__main__":
    app()
