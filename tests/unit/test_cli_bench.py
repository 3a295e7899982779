"""`lastevent bench`: what is measured, what stands on stdout, what is told of failures, and the exit codes."""

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cli.bench import Plan, run_bench
from shared.errors import ConfigurationError
from shared.settings import Settings
from tests.support.openai_server import OpenAIServer, Status, answer, error_body
from tests.support.scripted_sse import Answer, ScriptedJob, ScriptedServer, scripted_server
from tests.support.waiting import wait_until

KEY = "sk-test-8f14e45fceea167a5a36dedd4bea2543"
A, B = "local/smollm2-135m-instruct", "openai/gpt-4o-mini"


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        server.on_submit = says_hello
        yield server


COLUMNS = 9
"""Of the table."""


class Benched:
    """One bench, and what it wrote."""

    def __init__(self, url: str, *models: str, terminal: bool = False, **plan: Any) -> None:
        self._out, self._err = StringIO(), StringIO()
        self.out = Console(file=self._out, width=120)
        self.err = Console(file=self._err, width=120, force_terminal=terminal, color_system=None)
        self.url, self.plan = url, Plan("Hi", models, **{"runs": 2, **plan})

    async def run(self, *, json: bool = False, chart: Path | None = None, **settings: Any) -> int:
        keys = {"openai_api_key": None, "openai_base_url": None, **settings}
        return await run_bench(
            self.plan, Settings(**keys), url=self.url, json=json, chart=chart, out=self.out, err=self.err
        )  # fmt: skip

    @property
    def stdout(self) -> str:
        return self._out.getvalue()

    @property
    def stderr(self) -> str:
        return self._err.getvalue()

    def row(self, name: str) -> list[str]:
        """The table's cells of one row."""
        lines = [re.split(r" {2,}", line.strip()) for line in self.stdout.splitlines() if name in line]
        return next(cells for cells in lines if len(cells) == COLUMNS)


def says_hello(job: ScriptedJob) -> None:
    job.start()
    job.say("Hello ", "wörld!")
    job.end(finish_reason="stop")


def fails(job: ScriptedJob) -> None:
    job.start()
    job.end("error", code="timeout", message="nothing for 60 s", retryable=True, partial=False)


# --- what is measured ------------------------------------------------------------------------------------------------


async def test_models_take_turns_and_each_has_its_row(server: ScriptedServer) -> None:
    bench = Benched(server.url, A, B)
    assert await bench.run() == 0
    assert [job.model for job in server.jobs.values()] == [A, B, A, B]
    assert (bench.row(A)[-2:], bench.row(B)[-2:]) == (["2", "0"], ["2", "0"])
    assert "★" in bench.stdout
    assert "█" in bench.stdout
    assert bench.stderr == ""


async def test_without_a_model_it_is_the_servers_first(server: ScriptedServer) -> None:
    bench = Benched(server.url, max_tokens=7)
    assert await bench.run() == 0
    submit = next(seen for seen in server.seen if seen.method == "POST")
    assert json.loads(submit.body) == {"model": A, "prompt": "Hi", "max_tokens": 7}
    assert "★" not in bench.stdout, "one alone is not the best"


async def test_json_is_all_of_stdout(server: ScriptedServer) -> None:
    server.on_submit = lambda job: says_hello(job) if job.model == A else fails(job)
    bench = Benched(server.url, A, B)
    assert await bench.run(json=True) == 1
    said = json.loads(bench.stdout)
    good, bad = said["results"]
    assert (good["model"], good["way"], len(good["runs"]), good["failed"]) == (A, "queue", 2, {})
    assert good["ttft_s"]["p50"] == min(run["ttft_s"] for run in good["runs"])
    assert (bad["runs"], bad["failed"], bad["ttft_s"]) == ([], {"timeout": 2}, None)
    assert (said["runs"], said["interrupted"], said["queue_adds"]) == (2, False, {})


async def test_progress_is_shown_where_a_person_looks(server: ScriptedServer) -> None:
    bench = Benched(server.url, A, terminal=True)
    await bench.run()
    assert "2/2" in bench.stderr


# --- what fails ------------------------------------------------------------------------------------------------------


async def test_failed_jobs_are_counted_and_told_by_their_code(server: ScriptedServer) -> None:
    server.on_submit = lambda job: fails(job) if len(server.jobs) == 2 else says_hello(job)
    bench = Benched(server.url, A, runs=3)
    assert await bench.run() == 1
    assert bench.row(A)[-2:] == ["2", "1"]
    assert f"1 failed {A}: timeout: nothing for 60 s" in bench.stdout


async def test_a_refused_submit_is_a_failure_with_the_problems_code(server: ScriptedServer) -> None:
    server.problem = {"title": "Full", "status": 503, "detail": "The queue is full.", "code": "queue_full"}
    bench = Benched(server.url, A)
    assert await bench.run() == 1
    assert f"2 failed {A}: queue_full: The queue is full." in bench.stdout


async def test_an_empty_answer_and_a_vanished_job_are_failures(server: ScriptedServer) -> None:
    def odd(job: ScriptedJob) -> None:
        job.start()
        job.end(finish_reason="stop")
        if len(server.jobs) == 2:
            job.answers.append(Answer([b"{}"], 404, "application/problem+json"))

    server.on_submit = odd
    bench = Benched(server.url, A)
    assert await bench.run(json=True) == 1
    assert json.loads(bench.stdout)["results"][0]["failed"] == {"empty": 1, "stream_refused": 1}


async def test_nobody_there() -> None:
    async with scripted_server() as gone:
        pass
    bench = Benched(gone.url, A)
    assert await bench.run() == 2
    assert (bench.stdout, bench.stderr) == ("", f"lastevent: nothing answers at {gone.url}: start it with `lastevent up`\n")


async def test_without_a_library_to_draw_with_nothing_is_asked(
    server: ScriptedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match="pip install matplotlib"):
        await Benched(server.url, A).run(chart=tmp_path / "chart.png")
    assert server.seen == []


async def test_the_chart_is_a_png(server: ScriptedServer, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="draws --chart; not a dependency")
    bench = Benched(server.url, A, B)
    assert await bench.run(chart=tmp_path / "chart.png") == 0
    assert (tmp_path / "chart.png").read_bytes().startswith(b"\x89PNG")
    assert "█" not in bench.stdout


# --- Ctrl-C ----------------------------------------------------------------------------------------------------------


async def interrupted_in_the_second_run(server: ScriptedServer, bench: Benched) -> "asyncio.Task[int]":
    def begins(job: ScriptedJob) -> None:
        if len(server.jobs) == 1:
            says_hello(job)
        else:
            job.start()
            job.say("Hello ")

    server.on_submit = begins
    task = asyncio.ensure_future(bench.run())
    await wait_until(lambda: any(job.connections for job in list(server.jobs.values())[1:]), message="the second job's stream")
    os.kill(os.getpid(), signal.SIGINT)
    return task


async def test_ctrl_c_cancels_the_job_and_shows_what_was_measured(server: ScriptedServer) -> None:
    bench = Benched(server.url, A, runs=9)
    assert await (await interrupted_in_the_second_run(server, bench)) == 130
    assert [job.cancel_asked for job in server.jobs.values()] == [False, True]
    assert bench.row(A)[-2:] == ["1", "0"]
    assert bench.stderr == "stopped: 1 of 9 runs are over; the rest was not run\n"


async def test_a_cancel_from_elsewhere_is_not_swallowed(server: ScriptedServer) -> None:
    server.on_submit = lambda job: job.start()
    task = asyncio.ensure_future(Benched(server.url, A).run())
    await wait_until(lambda: bool(server.jobs), message="the first job")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [job.cancel_asked for job in server.jobs.values()] == [True]


# --- directly --------------------------------------------------------------------------------------------------------


async def test_direct_calls_are_made_in_turn_and_the_difference_is_told(server: ScriptedServer) -> None:
    async with OpenAIServer() as upstream:
        bench = Benched(server.url, A, B, direct=True, max_tokens=7)
        assert await bench.run(openai_api_key=KEY, openai_base_url=upstream.url) == 0
        assert [(r.model, r.body["max_tokens"], r.body["messages"]) for r in upstream.requests] == [
            ("gpt-4o-mini", 7, [{"role": "user", "content": "Hi"}])
        ] * 2
    assert bench.row(f"{B}, directly")[-2:] == ["2", "0"]
    assert f"the queue adds to {B}'s TTFT: p50 " in bench.stdout
    assert f"{A}, directly" not in bench.stdout, "there is no SDK for it"


async def test_a_failed_direct_call_is_told_without_the_servers_words(server: ScriptedServer) -> None:
    async with OpenAIServer() as upstream:
        upstream.on("gpt-4o-mini", Status(401, error_body(f"Incorrect API key provided: {KEY}")))
        upstream.on("gpt-4o-mini", *answer())
        bench = Benched(server.url, B, direct=True)
        assert await bench.run(openai_api_key=KEY, openai_base_url=upstream.url) == 1
    assert f"1 failed {B}, directly: http_401" in bench.stdout
    assert KEY not in bench.stdout + bench.stderr


async def test_direct_calls_without_a_key_are_refused_before_anything_is_asked(server: ScriptedServer) -> None:
    with pytest.raises(ConfigurationError, match="openai/… itself and needs OPENAI_API_KEY"):
        await Benched(server.url, B, direct=True).run()
    assert server.jobs == {}
