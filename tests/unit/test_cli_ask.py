"""`lastevent ask`: what stands on the terminal, what goes into a pipe, and the exit codes."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from typing import Any

import pytest

from cli.ask import run_ask
from cli.screen import Screen
from shared.errors import ConfigurationError
from tests.support.scripted_sse import Answer, ScriptedJob, ScriptedServer, frame, scripted_server
from tests.support.terminal import Streams
from tests.support.waiting import wait_until

REQUEST = {"model": "local/smollm2-135m-instruct", "prompt": "Say hello."}


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


async def ask(url: str, request: dict[str, Any], streams: Streams, *, as_json: bool = False) -> int:
    return await run_ask(url, request, streams.output(as_json=as_json))


def says_hello(job: ScriptedJob) -> None:
    job.start()
    job.say("Hello ", "wörld!")
    job.end(finish_reason="stop")


class TestPiped:
    async def test_stdout_is_the_answer_and_stderr_one_line_of_figures(self, server: ScriptedServer) -> None:
        server.on_submit = says_hello
        streams = Streams(terminal=False)
        assert await ask(server.url, REQUEST, streams) == 0
        assert streams.stdout == "Hello wörld!\n"
        assert streams.stderr == "TTFT 0.25 s · 26.5 tokens/s · 4 tokens · 1 attempt\n"

    async def test_what_the_model_says_is_not_changed(self, server: ScriptedServer) -> None:
        def odd(job: ScriptedJob) -> None:
            job.start()
            job.say("[bold]a[/]\x1b[31m\x07", "\r\n")
            job.end(finish_reason="stop")

        server.on_submit = odd
        streams = Streams(terminal=False)
        await ask(server.url, REQUEST, streams)
        assert streams.stdout == "[bold]a[/]\x1b[31m\x07\r\n"

    async def test_a_lost_connection_is_a_note_on_stderr_only(self, server: ScriptedServer) -> None:
        def breaks_once(job: ScriptedJob) -> None:
            says_hello(job)
            job.answers.append(Answer([b"retry: 5\n\n", *(frame(d, i) for i, d in job.log[:3])], then="cut"))

        server.on_submit = breaks_once
        streams = Streams(terminal=False)
        assert await ask(server.url, REQUEST, streams) == 0
        assert streams.stdout == "Hello wörld!\n"
        assert streams.stderr.splitlines()[0] == "connection lost, resuming from 1-1"
        assert streams.stderr.splitlines()[1].endswith("1 attempt · 2 connections")

    async def test_a_reset_cannot_be_taken_back_and_says_so(self, server: ScriptedServer) -> None:
        server.on_submit = starts_over
        streams = Streams(terminal=False)
        assert await ask(server.url, REQUEST, streams) == 0
        assert streams.stdout.endswith("\nHello wörld!\n")
        assert "starts over" in streams.stderr

    async def test_json_is_the_final_job(self, server: ScriptedServer) -> None:
        server.on_submit = says_hello
        streams = Streams(terminal=False)
        assert await ask(server.url, REQUEST, streams, as_json=True) == 0
        job = json.loads(streams.stdout)
        assert (job["status"], job["text"]) == ("done", "Hello wörld!")

    async def test_tool_calls_are_shown(self, server: ScriptedServer) -> None:
        def calls(job: ScriptedJob) -> None:
            job.start()
            job.add("1-1", "tool_call", index=0, id="c", name="look", arguments='{"q":')
            job.add("1-2", "tool_call", index=0, arguments="1}")
            job.end(finish_reason="tool_calls")

        server.on_submit = calls
        streams = Streams(terminal=False)
        await ask(server.url, REQUEST, streams)
        assert streams.stdout == 'look({"q":1})\n'


def starts_over(job: ScriptedJob) -> None:
    job.start()
    job.say("Something that is ", "quite wrong and longer than a line")
    job.start(2, "retry", reset=True)
    job.say("Hello ", "wörld!")
    job.end(finish_reason="stop")


class TestTerminal:
    async def test_the_answer_then_the_figures(self, server: ScriptedServer) -> None:
        server.on_submit = says_hello
        streams = Streams(terminal=True)
        await ask(server.url, REQUEST, streams)
        assert "Hello wörld!" in streams.screen()
        assert "26.5 tokens/s" in streams.stdout

    async def test_a_reset_takes_back_what_was_shown(self, server: ScriptedServer) -> None:
        server.on_submit = starts_over
        streams = Streams(terminal=True)
        await ask(server.url, REQUEST, streams)
        shown = "\n".join(streams.screen())
        assert "Hello wörld!" in shown
        assert "wrong" not in shown

    async def test_the_model_cannot_steer_the_terminal(self, server: ScriptedServer) -> None:
        def hostile(job: ScriptedJob) -> None:
            job.start()
            job.say("a\x1b]0;owned\x07b\x9b2Jc\rd")
            job.end("error", code="internal", message="e\x1b[2J", retryable=False, partial=True)

        server.on_submit = hostile
        streams = Streams(terminal=True)
        assert await ask(server.url, REQUEST, streams) == 1
        assert "a\ufffd]0;owned\ufffdb\ufffd2Jc\ufffdd" in streams.stdout
        assert "e\ufffd[2J" in streams.stdout


class TestScreen:
    def shows(self, *texts: str, note_after: int | None = None) -> list[str]:
        streams = Streams(terminal=True)
        screen = Screen(streams.out, streams.err)
        for i, text in enumerate(texts):
            screen.show(text)
            if i == note_after:
                screen.note("a note")
        screen.show(texts[-1], final=True)
        screen.close()
        return streams.screen()

    def test_only_what_is_new_is_written(self) -> None:
        assert self.shows("a", "ab", "ab\nc") == ["ab", "c", ""]

    def test_a_replay_of_the_same_changes_nothing(self) -> None:
        assert self.shows("abc", "", "a", "abc", "abcd") == ["abcd", ""]

    def test_a_replay_that_differs_replaces_all(self) -> None:
        assert self.shows("abc\ndef", "", "a", "ax") == ["ax", ""]

    def test_wrapped_and_wide_lines_are_taken_back_too(self) -> None:
        assert self.shows("x" * 75 + "\ty", "new") == ["new", ""]

    def test_a_shorter_end_replaces_what_was_shown(self) -> None:
        assert self.shows("abc", "ab") == ["ab", ""]

    def test_notes_stand_on_lines_of_their_own_and_go_with_the_answer(self) -> None:
        assert self.shows("ab", "abc", note_after=0) == ["ab", "a note", "c", ""]
        assert self.shows("ab", "x", note_after=0) == ["x", ""]

    def test_what_has_scrolled_away_stays_and_is_called_discarded(self) -> None:
        lines = self.shows("\n" * 10 + "old", "new")
        assert lines[10] == "old"
        assert lines[11].startswith("the answer starts over")
        assert lines[-2:] == ["new", ""]


class TestFailing:
    async def failing(self, server: ScriptedServer, request: dict[str, Any] = REQUEST) -> tuple[int, str]:
        streams = Streams(terminal=False)
        code = await ask(server.url, request, streams)
        assert streams.stdout == ""
        return code, streams.stderr

    async def test_field_problems_are_named(self, server: ScriptedServer) -> None:
        errors = [{"field": "model", "message": "there is no local model 'x'"}, {"field": "", "message": "send a prompt"}]
        server.problem = {"title": "Bad", "status": 400, "detail": "see model", "code": "invalid_request", "errors": errors}
        assert await self.failing(server) == (2, "lastevent: model: there is no local model 'x'; send a prompt\n")

    async def test_a_problem_without_fields_is_its_detail(self, server: ScriptedServer) -> None:
        server.problem = {"title": "Unavailable", "status": 503, "detail": "Set OPENAI_API_KEY [first].", "code": "x"}
        assert await self.failing(server) == (2, "lastevent: Set OPENAI_API_KEY [first].\n")

    async def test_a_stranger_on_the_port_is_called_one(self, server: ScriptedServer) -> None:
        streams = Streams(terminal=False)
        assert await ask(server.url + "/elsewhere", REQUEST, streams) == 2
        assert streams.stderr == f"lastevent: what answers at {server.url}/elsewhere is not Lastevent (HTTP 404)\n"

    async def test_nobody_there(self) -> None:
        async with scripted_server() as gone:
            pass
        assert await self.failing(gone) == (2, f"lastevent: nothing answers at {gone.url}: start it with `lastevent up`\n")

    @pytest.mark.parametrize("url", ["localhost:8000", "ftp://x", "http://[::1"])
    async def test_a_bad_url(self, url: str) -> None:
        streams = Streams(terminal=False)
        assert await ask(url, REQUEST, streams) == 2
        assert "is not a URL like http://127.0.0.1:8000" in streams.stderr

    async def test_a_failed_job_says_why_and_keeps_what_came(self, server: ScriptedServer) -> None:
        def fails(job: ScriptedJob) -> None:
            job.start()
            job.say("Half")
            job.end("error", code="timeout", message="nothing for 60 s", retryable=True, partial=True)

        server.on_submit = fails
        streams = Streams(terminal=False)
        assert await ask(server.url, REQUEST, streams) == 1
        assert streams.stdout == "Half\n"
        assert streams.stderr.splitlines()[0] == "error/timeout: nothing for 60 s; what came before it is kept"

    async def test_a_job_that_vanishes(self, server: ScriptedServer) -> None:
        problem = json.dumps({"title": "Not found", "status": 404, "detail": "It was deleted."}).encode()
        server.on_submit = lambda job: job.answers.append(Answer([problem], 404, "application/problem+json"))
        assert await self.failing(server) == (2, "lastevent: It was deleted.\n")


class TestInterrupting:
    async def asking(self, server: ScriptedServer, streams: Streams) -> "asyncio.Task[int]":
        def begins(job: ScriptedJob) -> None:
            job.start()
            job.say("Hello ")

        server.on_submit = begins
        task = asyncio.ensure_future(ask(server.url, REQUEST, streams))
        await wait_until(lambda: "Hello" in streams.stdout, message="the first token on stdout")
        return task

    async def test_the_first_ctrl_c_cancels_the_job_and_keeps_what_came(self, server: ScriptedServer) -> None:
        streams = Streams(terminal=False)
        task = await self.asking(server, streams)
        os.kill(os.getpid(), signal.SIGINT)
        assert await task == 130
        assert [job.cancel_asked for job in server.jobs.values()] == [True]
        assert streams.stdout == "Hello \n"
        assert "cancelled · TTFT" in streams.stderr

    async def test_a_done_that_wins_against_the_cancel_is_the_truth(self, server: ScriptedServer) -> None:
        def finishes(job: ScriptedJob) -> None:
            job.say("wörld!")
            job.end(finish_reason="stop")

        server.on_cancel = finishes
        streams = Streams(terminal=False)
        task = await self.asking(server, streams)
        os.kill(os.getpid(), signal.SIGINT)
        assert await task == 0
        assert streams.stdout == "Hello wörld!\n"

    async def test_the_second_leaves_at_once(self, server: ScriptedServer) -> None:
        server.on_cancel = lambda job: None
        streams = Streams(terminal=False)
        task = await self.asking(server, streams)
        os.kill(os.getpid(), signal.SIGINT)
        await wait_until(lambda: "again leaves" in streams.stderr, message="the note")
        os.kill(os.getpid(), signal.SIGINT)
        assert await task == 130

    async def test_a_cancel_from_elsewhere_is_not_swallowed(self, server: ScriptedServer) -> None:
        task = await self.asking(server, Streams(terminal=False))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


class TestSubmitting:
    async def test_sends_what_was_set_and_the_servers_first_model(self, server: ScriptedServer) -> None:
        server.on_submit = says_hello
        streams = Streams(terminal=False)
        request = {"model": None, "prompt": "Hi", "system": "Be brief.", "max_tokens": 8, "temperature": 0.0, "seed": None}
        assert await ask(server.url, request, streams) == 0
        submit = next(seen for seen in server.seen if seen.method == "POST")
        assert json.loads(submit.body) == {
            "model": "local/smollm2-135m-instruct", "prompt": "Hi", "system": "Be brief.", "max_tokens": 8, "temperature": 0.0,
        }  # fmt: skip
        assert submit.headers["idempotency-key"]

    async def test_detached_it_prints_the_id_and_leaves(self, server: ScriptedServer) -> None:
        streams = Streams(terminal=False)
        assert await run_ask(server.url, REQUEST, streams.output(), detach=True) == 0
        assert streams.stdout == f"{next(iter(server.jobs))}\n"
        assert server.cursors() == []

    async def test_the_key_of_the_environment_goes_with_every_call(
        self, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LASTEVENT_API_KEY", "le_secret")
        server.on_submit = says_hello
        streams = Streams(terminal=False)
        assert await ask(server.url, REQUEST, streams) == 0
        assert len(server.seen) == 2
        assert {seen.headers.get("authorization") for seen in server.seen} == {"Bearer le_secret"}

    async def test_a_key_that_no_header_may_hold_is_refused_unseen(
        self, server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("LASTEVENT_API_KEY", "le_sécret")
        streams = Streams(terminal=False)
        with pytest.raises(ConfigurationError, match=r"^LASTEVENT_API_KEY is no key: (?!.*sécret)"):
            await ask(server.url, REQUEST, streams)
        assert server.seen == []

    async def test_a_server_that_wants_a_key_is_answered_with_the_variable(self, server: ScriptedServer) -> None:
        server.problem = {"title": "Unauthorized", "status": 401, "detail": "This call needs a key.", "code": "unauthorized"}
        streams = Streams(terminal=False)
        assert await ask(server.url, REQUEST, streams) == 2
        assert streams.stderr == "lastevent: This call needs a key. LASTEVENT_API_KEY is not set.\n"
