"""The terminal's reader keeps every rule of protocol 4, against scripted servers on real sockets."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from cli.reader import JobReader, StreamLost, StreamRefused
from tests.support.scripted_sse import Answer, ScriptedJob, ScriptedServer, frame, scripted_server


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with scripted_server() as server:
        yield server


@pytest.fixture
def job(server: ScriptedServer) -> ScriptedJob:
    return server.job()


def told_in_full(job: ScriptedJob) -> ScriptedJob:
    job.start()
    job.say("Hel", "lo ", "wörld", "!")
    job.end(finish_reason="stop")
    return job


def log_frames(job: ScriptedJob, first: int, last: int) -> list[bytes]:
    return [frame(data, event_id) for event_id, data in job.log[first:last]]


async def read_all(reader: JobReader) -> list[dict[str, Any]]:
    return [frame async for frame in reader]


def types(frames: list[dict[str, Any]]) -> list[str]:
    return [frame["type"] for frame in frames]


def assert_told_exactly_once(reader: JobReader) -> None:
    assert reader.text == "Hello wörld!"
    assert reader.terminal is not None
    assert reader.terminal["type"] == "done"
    assert reader.cursor == "1-5"
    assert (reader.lost, reader.doubled) == (0, 0)


class TestOneConnection:
    async def test_reads_to_the_terminal_event_and_stops_there(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        reader = JobReader(server.url, job.id)
        frames = await read_all(reader)
        assert_told_exactly_once(reader)
        assert types(frames) == ["queued", "started", "token", "token", "token", "token", "done"]
        assert frames[0]["id"] == "0-1"
        assert reader.connections == 1
        assert [a["attempt"] for a in reader.attempts] == [1]

    async def test_starts_after_the_cursor_it_is_given(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        reader = JobReader(server.url, job.id, cursor="1-2")
        await read_all(reader)
        assert server.cursors() == ["1-2"]
        assert reader.text == "wörld!"
        assert (reader.lost, reader.doubled) == (0, 0)

    async def test_204_means_that_all_was_read(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        reader = JobReader(server.url, job.id, cursor="1-5")
        assert await read_all(reader) == []
        assert reader.terminal is None

    async def test_asks_for_unmerged_frames_and_sends_its_headers(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        await read_all(JobReader(server.url + "/", job.id, merge=False, headers={"Authorization": "Bearer k"}))
        assert server.seen[0].query == {"merge": "0"}
        assert server.seen[0].headers["authorization"] == "Bearer k"

    async def test_unknown_types_fields_and_heartbeats_are_yielded_and_change_nothing(
        self, server: ScriptedServer, job: ScriptedJob
    ) -> None:
        told_in_full(job)
        extra = [frame({"type": "heartbeat"}), b": hb\n\n", frame({"type": "novelty", "text": "no"}, "1-2")]
        rest = [frame({"type": "token", "text": "lo wörld!", "mood": "good", "n": 2}, "1-4"), frame(job.log[-1][1], "1-5")]
        job.answers.append(Answer([*log_frames(job, 0, 3), *extra, *rest]))
        reader = JobReader(server.url, job.id)
        frames = await read_all(reader)
        assert_told_exactly_once(reader)
        assert types(frames)[3:5] == ["heartbeat", "novelty"]

    async def test_tool_calls_reasoning_and_refusals_are_joined(self, server: ScriptedServer, job: ScriptedJob) -> None:
        job.start()
        job.say("hm, ", "so", kind="reasoning")
        job.add("1-3", "tool_call", index=0, id="call_a", name="look", arguments="")
        job.add("1-4", "tool_call", index=1, id="call_b", name="find", arguments='{"q"')
        job.add("1-5", "tool_call", index=0, arguments="{}")
        job.add("1-6", "tool_call", index=1, arguments=":1}")
        job.say("no", kind="refusal")
        job.end(finish_reason="tool_calls")
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert (reader.reasoning, reader.refusal) == ("hm, so", "no")
        assert reader.tool_calls == [
            {"id": "call_a", "type": "function", "function": {"name": "look", "arguments": "{}"}},
            {"id": "call_b", "type": "function", "function": {"name": "find", "arguments": '{"q":1}'}},
        ]


class TestComingBack:
    @pytest.mark.parametrize("then", ["cut", "end"])
    async def test_a_broken_or_early_ended_stream_is_resumed_with_last_event_id(
        self, server: ScriptedServer, job: ScriptedJob, then: str
    ) -> None:
        told_in_full(job)
        job.answers.append(Answer([b"retry: 5\n\n", *log_frames(job, 0, 4)], then=then))
        reader = JobReader(server.url, job.id)
        frames = await read_all(reader)
        assert_told_exactly_once(reader)
        assert server.cursors() == [None, "1-2"]
        assert types(frames).count("dropped") == 1
        assert reader.connections == 2

    async def test_drop_cuts_a_waiting_read(self, server: ScriptedServer, job: ScriptedJob) -> None:
        job.start()
        job.say("Hel", "lo ")
        reader = JobReader(server.url, job.id)
        async with aclosing(aiter(reader)) as frames:
            while (await anext(frames)).get("id") != "1-2":
                pass
            waiting = asyncio.ensure_future(anext(frames))
            await asyncio.wait({waiting}, timeout=0.05)
            reader.drop()
            reader.drop()
            assert await waiting == {"type": "dropped", "error": "cut by the reader"}
            job.say("wörld", "!")
            job.end(finish_reason="stop")
            assert [f["id"] async for f in frames] == ["1-3", "1-4", "1-5"]
        assert_told_exactly_once(reader)

    async def test_drop_after_every_frame_loses_and_doubles_nothing(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job).retry_ms = 0
        reader = JobReader(server.url, job.id)
        async for event in reader:
            if event["type"] != "dropped":
                reader.drop()
        assert_told_exactly_once(reader)
        assert server.cursors() == [None, "0-1", "1-0", "1-1", "1-2", "1-3", "1-4"]

    async def test_a_drop_between_frames_takes_in_nothing_more(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        job.answers.append(Answer([b"retry: 5\n\n" + b"".join(log_frames(job, 0, 6))], then="hold"))
        reader = JobReader(server.url, job.id)
        async for event in reader:
            if event.get("id") == "1-1":
                reader.drop()
        assert_told_exactly_once(reader)
        assert server.cursors() == [None, "1-1"]

    async def test_waits_as_long_as_retry_says(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        job.answers.append(Answer([b"retry: 300\n\n", *log_frames(job, 0, 2)], then="cut"))
        reader = JobReader(server.url, job.id)
        clock = asyncio.get_running_loop().time
        at: dict[str, float] = {}
        async for event in reader:
            at.setdefault(event.get("id", event["type"]), clock())
        assert reader.retry_s == 0.02  # the later connection's
        assert at["1-1"] - at["dropped"] >= 0.3

    async def test_reconnect_is_no_loss_and_not_the_end(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        away = frame({"type": "reconnect", "reason": "draining"})
        job.answers.append(Answer([b"retry: 5\n\n", *log_frames(job, 0, 3), away], then="hold"))
        reader = JobReader(server.url, job.id)
        frames = await read_all(reader)
        assert_told_exactly_once(reader)
        assert "dropped" not in types(frames)
        assert {"type": "reconnect", "reason": "draining"} in frames

    @pytest.mark.parametrize("status", [500, 502, 503, 504, 429])
    async def test_statuses_that_pass_by_themselves_are_retried(
        self, server: ScriptedServer, job: ScriptedJob, status: int
    ) -> None:
        told_in_full(job)
        job.answers.append(Answer([b"busy"], status=status, content_type="text/plain"))
        reader = JobReader(server.url, job.id)
        reader.retry_s = 0.01
        frames = await read_all(reader)
        assert_told_exactly_once(reader)
        assert frames[0] == {"type": "dropped", "error": f"HTTP {status}"}

    async def test_a_silent_socket_is_taken_for_dead(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        job.answers.append(Answer([b"retry: 5\n\n", *log_frames(job, 0, 3)], then="hold"))
        reader = JobReader(server.url, job.id, silence_s=0.2)
        frames = await read_all(reader)
        assert_told_exactly_once(reader)
        assert {"type": "dropped", "error": "ReadTimeout"} in frames


class TestFinalAnswers:
    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    async def test_are_raised_with_the_servers_problem(self, server: ScriptedServer, job: ScriptedJob, status: int) -> None:
        problem = {"title": "No", "status": status, "detail": "it is so", "code": "because"}
        job.answers.append(Answer([json.dumps(problem).encode()], status, "application/problem+json"))
        with pytest.raises(StreamRefused, match="it is so") as refused:
            await read_all(JobReader(server.url, job.id))
        assert refused.value.status == status
        assert refused.value.problem["code"] == "because"

    @pytest.mark.parametrize(
        "answer",
        [
            Answer([b"<html>"], 200, "text/html"),
            Answer([b"<html>"], 404, "text/html"),
            Answer([b"data: not json\n\n"]),
            Answer([b"data: [1]\n\n"]),
            Answer([b'id: seven\ndata: {"type": "token", "text": "x"}\n\n']),
        ],
    )
    async def test_what_is_no_such_server_is_refused_in_words(
        self, server: ScriptedServer, job: ScriptedJob, answer: Answer
    ) -> None:
        job.answers.append(answer)
        with pytest.raises(StreamRefused, match="not an event"):
            await read_all(JobReader(server.url, job.id))

    async def test_an_unknown_job_is_final(self, server: ScriptedServer) -> None:
        with pytest.raises(StreamRefused, match="no job"):
            await read_all(JobReader(server.url, "job_x"))
        assert len(server.seen) == 1


class TestGivingUp:
    async def test_a_server_that_never_comes_back_is_given_up(self) -> None:
        async with scripted_server() as gone:
            url = gone.url
        reader = JobReader(url, "job_x", give_up_after_s=0.3)
        reader.retry_s = 0.02
        with pytest.raises(StreamLost, match=r"0\.3 s"):
            await read_all(reader)
        assert reader.connections >= 3

    async def test_being_sent_away_for_ever_is_given_up(self, server: ScriptedServer, job: ScriptedJob) -> None:
        away = [b"retry: 20\n\n", frame({"type": "reconnect", "reason": "Redis is away"})]
        job.answers.extend(Answer(away) for _ in range(50))
        with pytest.raises(StreamLost):
            await read_all(JobReader(server.url, job.id, give_up_after_s=0.3))
        assert 3 <= len(server.seen) < 50

    async def test_progress_sets_the_clock_back(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job).retry_ms = 60
        reader = JobReader(server.url, job.id, give_up_after_s=0.2)  # shorter than all its interruptions together
        async for event in reader:
            if event["type"] != "dropped":
                reader.drop()
        assert_told_exactly_once(reader)

    async def test_heartbeats_set_the_clock_back(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        job.answers.extend(Answer([b"retry: 60\n\n", b": hb\n\n"]) for _ in range(6))
        reader = JobReader(server.url, job.id, give_up_after_s=0.2)  # shorter than all its interruptions together
        await read_all(reader)
        assert_told_exactly_once(reader)

    def test_the_wait_grows_with_the_failing_and_stays_bounded(self) -> None:
        reader = JobReader("http://x", "j", give_up_after_s=1e9)
        assert reader._delay("") == 1.0
        reader._failing_since = time.monotonic() - 8.0
        assert 4.0 <= reader._delay("") <= 8.1
        reader._failing_since = time.monotonic() - 1000.0
        delays = [reader._delay("") for _ in range(40)]
        assert 7.5 <= min(delays) <= max(delays) <= 15.0
        assert len(set(delays)) > 20  # spread, so that a herd does not come back as one
        reader.retry_s = 20.0
        assert reader._delay("") == 20.0  # never before the server asked for it


class TestDiscarding:
    async def test_a_reset_discards_what_came_before_it(self, server: ScriptedServer, job: ScriptedJob) -> None:
        job.start()
        job.say("wrong")
        job.say("hm", kind="reasoning")
        job.add("1-3", "tool_call", index=0, id="c", name="f", arguments="{}")
        job.start(2, "retry", reset=True)
        job.say("right")
        job.end(finish_reason="stop")
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert (reader.text, reader.reasoning, reader.tool_calls) == ("right", "", [])
        assert [a["attempt"] for a in reader.attempts] == [1, 2]
        assert (reader.lost, reader.doubled, reader.connections) == (0, 0, 1)

    async def test_without_reset_a_new_attempt_continues_even_if_numbers_are_skipped(
        self, server: ScriptedServer, job: ScriptedJob
    ) -> None:
        job.start()
        job.say("right ")
        job.start(1002, "takeover")
        job.say("on")
        job.end(finish_reason="stop")
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert reader.text == "right on"
        assert (reader.lost, reader.doubled, reader.connections) == (0, 0, 1)

    async def test_a_rewind_discards_everything_and_the_replay_follows(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        reader = JobReader(server.url, job.id, cursor="7-99")
        reader.text = "of another log"
        frames = await read_all(reader)
        assert types(frames)[:2] == ["rewind", "queued"]
        assert_told_exactly_once(reader)

    async def test_a_rewind_in_mid_stream_too(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        outran = [frame({"type": "token", "text": "lost in the failover"}, "1-1"), frame({"type": "rewind"})]
        job.answers.append(Answer([*log_frames(job, 0, 2), *outran, *log_frames(job, 0, 7)]))
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert_told_exactly_once(reader)
        assert len(reader.attempts) == 1

    async def test_a_start_after_something_else_makes_it_read_again_from_the_first_event(
        self, server: ScriptedServer, job: ScriptedJob
    ) -> None:
        job.start()
        job.say("Hello ")
        job.start(2, "takeover")
        job.say("world")
        job.end(finish_reason="stop")
        outran = frame({"type": "token", "text": "never kept"}, "1-2")
        job.answers.append(Answer([b"retry: 5\n\n", *log_frames(job, 0, 3), outran, *log_frames(job, 3, 6)], then="hold"))
        reader = JobReader(server.url, job.id)
        frames = await read_all(reader)
        assert server.cursors() == [None, None]
        assert reader.text == "Hello world"
        assert "dropped" not in types(frames)
        assert (reader.lost, reader.doubled) == (0, 0)

    async def test_what_a_replay_does_not_mend_is_counted_and_not_tried_for_ever(
        self, server: ScriptedServer, job: ScriptedJob
    ) -> None:
        job.start()
        for attempt in (2, 3):
            job.say("x")
            job.add(
                f"{attempt}-0", "started", attempt=attempt, model="m", worker="w", reason="takeover", reset=False, after="1-9"
            )
        job.end(finish_reason="stop")
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert reader.connections == 3
        assert reader.lost == 3  # 2-0 on the second and the third reading, 3-0 on the third
        assert reader.text == "xx"


class TestProof:
    async def test_merged_frames_count_for_what_they_stand_for(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        merged = frame({"type": "token", "text": "Hello wörld!", "n": 4}, "1-4")
        job.answers.append(Answer([*log_frames(job, 0, 2), merged, *log_frames(job, 6, 7)]))
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert_told_exactly_once(reader)

    @pytest.mark.parametrize(("missing", "lost"), [(slice(3, 5), 2), (slice(1, 2), 1)], ids=["tokens", "a start"])
    async def test_holes_are_lost(self, server: ScriptedServer, job: ScriptedJob, missing: slice, lost: int) -> None:
        told_in_full(job)
        frames = log_frames(job, 0, 7)
        del frames[missing]
        job.answers.append(Answer(frames))
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert (reader.lost, reader.doubled) == (lost, 0)

    async def test_what_comes_twice_is_counted_and_not_taken_in_twice(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        job.answers.append(Answer([*log_frames(job, 0, 4), *log_frames(job, 2, 7)]))
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert reader.text == "Hello wörld!"
        assert (reader.lost, reader.doubled) == (0, 2)

    async def test_a_merged_frame_that_overlaps_is_doubled(self, server: ScriptedServer, job: ScriptedJob) -> None:
        told_in_full(job)
        overlap = frame({"type": "token", "text": "lo wörld!", "n": 3}, "1-4")
        job.answers.append(Answer([*log_frames(job, 0, 4), overlap, *log_frames(job, 6, 7)]))
        reader = JobReader(server.url, job.id)
        await read_all(reader)
        assert (reader.lost, reader.doubled) == (0, 1)
