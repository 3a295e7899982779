"""`python -m tests.chaos`: runs it, shows what goes on, prints what came of it. Exit code 1: something was lost, or stuck."""

import asyncio
import contextlib
import secrets
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Final

import typer
import uvloop
from rich.console import Console

from tests.chaos.plan import Plan, make_plan
from tests.chaos.run import Run
from tests.chaos.scene import Scene
from tests.chaos.verdict import felt_table, totals_table

_SEED_BITS: Final = 20
_SHOWN: Final = 20
"""Lines of what is wrong that are printed; the count tells of the rest."""

console = Console(width=None if sys.stdout.isatty() else 140)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    seconds: Annotated[float, typer.Option(min=5, help="How long faults strike; settling comes on top.")] = 300,
    seed: Annotated[int | None, typer.Option(help="Decides all that happens; without it a new one.")] = None,
    lease: Annotated[float, typer.Option(min=0.5, help="LASTEVENT_LEASE_S of the stack.")] = 5,
    every: Annotated[float, typer.Option(min=0.2, help="Seconds from one fault to the next, on average.")] = 2.5,
) -> None:
    """Strikes workers, webs, Redis and sockets, and compares every reader's text with what was generated."""
    seed = secrets.randbits(_SEED_BITS) if seed is None else seed
    plan = make_plan(seed, seconds, lease_s=lease, every_s=every)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            zeros = runner.run(_run(plan))
    except (KeyboardInterrupt, asyncio.CancelledError) as stopped:
        console.print("chaos: stopped; nothing is left running")
        raise typer.Exit(130 if isinstance(stopped, KeyboardInterrupt) else 143) from None
    if not zeros:
        raise typer.Exit(1)


async def _run(plan: Plan) -> bool:
    myself = asyncio.current_task()
    assert myself is not None, "run by a runner"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, myself.cancel)
    console.print(
        f"chaos: seed {plan.seed}, {plan.seconds:g} s, {len(plan.faults)} faults, {len(plan.jobs)} jobs; Ctrl-C stops"
    )
    scene = Scene(plan)
    keep = False
    try:
        async with scene:
            run = Run(plan, scene)
            async with _progress(run, plan):
                await run.run()
        keep = not run.totals.are_zero
        _print(run, plan, scene)
        return run.totals.are_zero
    except Exception:
        keep = True
        console.print(f"chaos: the run itself failed; logs are in {scene.folder}", style="red")
        raise
    finally:
        if not keep:
            scene.tidy()


def _print(run: Run, plan: Plan, scene: Scene) -> None:
    console.print(felt_table(run.strikes.felt, plan))
    console.print(totals_table(run.totals))
    for line in run.totals.faults[:_SHOWN]:
        console.print(f"  {line}", style="red", markup=False, soft_wrap=True)
    if run.totals.are_zero:
        return
    again = f"SECONDS={plan.seconds:g} SEED={plan.seed} make chaos"
    console.print(f"chaos: {len(run.totals.faults)} things are wrong; logs are in {scene.folder}; again: {again}", style="red")


@asynccontextmanager
async def _progress(run: Run, plan: Plan) -> AsyncIterator[None]:
    """On a terminal a line that changes; else a line every ten seconds."""
    showing = asyncio.create_task(_show(run, plan))
    try:
        yield
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing


async def _show(run: Run, plan: Plan) -> None:
    began = time.monotonic()
    with console.status("", spinner="dots") as status:
        while True:
            await asyncio.sleep(0.5 if console.is_terminal else 10)
            totals = run.totals
            line = (
                f"{time.monotonic() - began:.0f} of {plan.seconds:.0f} s: {run.strikes.felt.strokes.total()} faults, "
                f"{totals.jobs} jobs, {totals.ended} of {totals.readers} readers done, wrong so far: {len(totals.faults)}"
            )
            if console.is_terminal:
                status.update(line)
            else:
                console.print(line)


if __name__ == "__main__":
    app()
