"""`lastevent bench`: how soon and how fast models answer, measured from outside, as a reader sees it.

    for each run: for each model: submit ─► first piece ─► last piece ─► end, and with --direct the same through its SDK

Models take turns, so that what disturbs one disturbs all. The table, or with --json one JSON object, goes to stdout; progress
and errors go to stderr. Exit codes: 0 all went well, 1 some runs failed, 2 nothing could be measured, 130 stopped by Ctrl-C,
with what was measured so far.
"""

import asyncio
import signal
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import msgspec
from rich.console import Console

from cli.api import Api, ApiError, connected
from cli.bench_direct import Direct, DirectFailed
from cli.bench_runs import Clock, Run, Tally, Way
from cli.bench_view import BenchView, as_json, check_chart, save_chart
from cli.output import print_line
from cli.reader import JobReader, StreamLost, StreamRefused
from cli.signals import INTERRUPTED
from shared.settings import Settings

FAILED: Final = 1
UNMEASURED: Final = 2

GOODBYE_S: Final = 5.0
"""How long an interrupted bench waits for its job to be cancelled."""

OUTPUT: Final = frozenset({"token", "reasoning", "refusal", "tool_call"})


class Plan(msgspec.Struct, frozen=True):
    """What is asked, and how often of each model. `models` are empty for the server's first."""

    prompt: str
    models: tuple[str, ...] = ()
    runs: int = 5
    max_tokens: int = 128
    direct: bool = False


class RunFailed(Exception):
    """One run came to nothing. `code` is protocol 4.1's, a problem's, or what happened to the stream."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


async def run_bench(
    plan: Plan,
    settings: Settings,
    *,
    url: str,
    json: bool,
    chart: Path | None,
    out: Console | None = None,
    err: Console | None = None,
) -> int:
    """Measures, prints, and returns the exit code.

    Raises:
        ConfigurationError: a key for --direct, or what draws the chart, is missing; nothing was asked.
    """
    out, err = out or Console(), err or Console(stderr=True)
    if chart is not None:
        check_chart(chart)
    async with AsyncExitStack() as stack:
        api = await stack.enter_async_context(connected(url))
        direct = await stack.enter_async_context(Direct(settings)) if plan.direct else None
        bench = Bench(api, plan, direct, BenchView(err))
        try:
            await bench.run()
        except ApiError as error:
            print_line(err, "[red]lastevent:[/]", str(error))
            return UNMEASURED
    _report(bench, plan, url, json, chart, out, err)
    if bench.interrupted:
        return INTERRUPTED
    return FAILED if any(tally.failed for tally in bench.tallies) else 0


def _report(bench: "Bench", plan: Plan, url: str, json: bool, chart: Path | None, out: Console, err: Console) -> None:
    measured = [tally for tally in bench.tallies if tally.done]
    if json:
        asked = {"url": url, "prompt": plan.prompt, "max_tokens": plan.max_tokens, "runs": plan.runs}
        out.file.write(as_json(measured, {**asked, "interrupted": bench.interrupted}) + "\n")
    elif measured:
        bench.view.print_results(out, measured, chart=chart is None)
    if bench.interrupted:
        done = sum(tally.done for tally in measured)
        print_line(
            err, "[yellow]stopped:[/]", f"{done} of {plan.runs * len(bench.tallies)} runs are over; the rest was not run"
        )
    if chart is not None and measured:
        save_chart(chart, measured)
        print_line(err, "", f"chart: {chart}", style="dim")


class Bench:
    """One bench. `tallies` fill while it runs: a row for each model and way, in the order asked for."""

    def __init__(self, api: Api, plan: Plan, direct: Direct | None, view: BenchView) -> None:
        self.api, self.plan, self.direct, self.view = api, plan, direct, view
        self.tallies: list[Tally] = []
        self.interrupted = False

    async def run(self) -> None:
        """Returns when all is run, or after Ctrl-C.

        Raises:
            ApiError: nothing answers, or what answers is not Lastevent.
            ConfigurationError: --direct lacks a key.
        """
        first = await self.api.first_model()  # also where models are named: it says in time that nothing answers
        models = self.plan.models or (first,)
        self.tallies = [Tally(model, way) for model in dict.fromkeys(models) for way in self._ways(model)]
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        loop.add_signal_handler(signal.SIGINT, self._interrupt, task)
        try:
            with self.view.progress(self.tallies, self.plan.runs):
                await self._measure()
        except asyncio.CancelledError:
            if not self.interrupted:
                raise
            while task.uncancel():
                pass
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def _ways(self, model: str) -> Sequence[Way]:
        return ("queue", "direct") if self.direct is not None and self.direct.can_call(model) else ("queue",)

    def _interrupt(self, task: "asyncio.Task[Any]") -> None:
        """Ctrl-C: the first one cancels the running job, the next one leaves at once."""
        self.interrupted = True
        task.cancel()

    async def _measure(self) -> None:
        for _ in range(self.plan.runs):
            for tally in self.tallies:
                await self._run(tally)
                self.view.advance(tally)

    async def _run(self, tally: Tally) -> None:
        """One run, well or not, into its tally."""
        try:
            run = await (self._through_queue(tally.model) if tally.way == "queue" else self._directly(tally.model))
        except (RunFailed, DirectFailed) as failed:
            tally.fail(failed.code, str(failed))
        else:
            tally.fail("empty", "the answer is empty") if run is None else tally.runs.append(run)

    async def _directly(self, model: str) -> Run | None:
        assert self.direct is not None, "without it no tally is `direct`"
        return await self.direct.run(model, self.plan.prompt, self.plan.max_tokens)

    async def _through_queue(self, model: str) -> Run | None:
        request = {"model": model, "prompt": self.plan.prompt, "max_tokens": self.plan.max_tokens}
        clock = Clock(perf_counter())
        submit = asyncio.ensure_future(self.api.submit(request))
        try:
            job = await asyncio.shield(submit)
            return await self._follow(job["id"], clock)
        except ApiError as error:
            raise RunFailed(error.code or "no_answer", str(error)) from None
        except asyncio.CancelledError:
            await self._cancel(submit)
            raise

    async def _follow(self, job_id: str, clock: Clock) -> Run | None:
        reader = JobReader(self.api.url, job_id, client=self.api.client)
        try:
            async for frame in reader:
                if frame["type"] in OUTPUT:
                    clock.piece(perf_counter())
        except StreamLost as lost:
            raise RunFailed("stream_lost", str(lost)) from None
        except StreamRefused as refused:
            raise RunFailed("stream_refused", str(refused)) from None
        now, end = perf_counter(), reader.terminal
        assert end is not None, "a reader that began at the first event saw the last one"
        if end["type"] != "done":
            raise RunFailed(end.get("code", end["type"]), end.get("message", "somebody cancelled it"))
        return clock.end(now, end["usage"]["output_tokens"])

    async def _cancel(self, submit: "asyncio.Future[dict[str, Any]]") -> None:
        """The job, if there is one, is not to go on and cost money."""
        with suppress(ApiError, TimeoutError):
            async with asyncio.timeout(GOODBYE_S):
                await self.api.cancel((await submit)["id"])
