"""`GET /v1/jobs/{id}/events` against a log that the test writes itself: each rule of protocol 4, in its order."""

import re

import httpx2
import pytest
from redis.asyncio import Redis

from cli.reader import JobReader
from shared import keys
from shared.events import Cancelled, Reasoning, Timing, Token, ToolCall, Usage
from shared.ids import EventId
from shared.job_queue import JobQueue
from tests.integration.conftest import NewAuthor
from tests.support.streams import ids_of, open_stream, read_all, text_of
from tests.support.waiting import wait_until

CANCELLED = Cancelled(reason="user", partial=True, usage=Usage(), timing=Timing())


# --- what it looks like --------------------------------------------------------------------------------------------------


async def test_headers_and_frames(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    """Protocol 4: the headers; every frame is `id:` and one `data:` line, and there is no `event:` field."""
    author = await new_author()
    await author.say("Hel", "lo")
    await author.end()
    async with open_stream(client, author.job_id) as stream:
        assert stream.status == 200
        assert stream.headers["content-type"] == "text/event-stream"
        assert stream.headers["cache-control"] == "no-store, no-transform"
        assert stream.headers["x-accel-buffering"] == "no"
        frames = await stream.to_end()
    assert [frame["type"] for frame in frames] == ["queued", "started", "token", "done"]
    assert ids_of(frames) == ["0-1", "1-0", "1-2", "1-3"]
    shape = rb"retry: \d+\n\n(id: \d+-\d+\ndata: \{[^\n]*\}\n\n)+"
    assert re.fullmatch(shape, stream.raw), stream.raw


async def test_private_fields_stay_private(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    """Protocol 4.1: frames leave out token ids and the format version."""
    author = await new_author()
    await author.put(Token("Hel", ids=(28, 91)))
    await author.end()
    frames = await read_all(client, author.job_id)
    assert frames[2] == {"type": "token", "text": "Hel", "id": "1-1"}
    assert set(frames[1]) == {"type", "attempt", "model", "worker", "reason", "reset", "after", "id"}


# --- rule 1: the cursor --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cursor", [None, "0-0"])
async def test_without_a_cursor_from_the_first_event(
    client: httpx2.AsyncClient, new_author: NewAuthor, cursor: str | None
) -> None:
    author = await new_author()
    await author.end()
    assert ids_of(await read_all(client, author.job_id, cursor)) == ["0-1", "1-0", "1-1"]


async def test_a_cursor_is_followed_by_what_comes_after_it(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a", "b", "c")
    await author.end()
    frames = await read_all(client, author.job_id, "1-2")
    assert ids_of(frames) == ["1-3", "1-4"]
    assert text_of(frames) == "c"


async def test_the_query_parameter_serves_where_no_header_can_be_sent(
    client: httpx2.AsyncClient, new_author: NewAuthor
) -> None:
    author = await new_author()
    await author.say("a", "b")
    await author.end()
    assert text_of(await read_all(client, author.job_id, last_event_id="1-1")) == "b"


async def test_the_header_wins_over_the_query_parameter(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a", "b", "c")
    await author.end()
    assert text_of(await read_all(client, author.job_id, "1-2", last_event_id="1-1")) == "c"


@pytest.mark.parametrize(
    "cursor", ["$", "*", "1", "1-", "-1", "1-2-3", "a-b", "1-2 3", "+1-2", "01-2", "1-9007199254740992", "9" * 60]
)
async def test_a_cursor_of_another_form_is_400(client: httpx2.AsyncClient, new_author: NewAuthor, cursor: str) -> None:
    author = await new_author()
    for answer in (
        await client.get(f"/v1/jobs/{author.job_id}/events", headers={"last-event-id": cursor}),
        await client.get(f"/v1/jobs/{author.job_id}/events", params={"last_event_id": cursor}),
    ):
        assert answer.status_code == 400
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["code"] == "bad_cursor"


@pytest.mark.parametrize("ended", [True, False])
@pytest.mark.parametrize("cursor", ["7-0", "2-1", "1-4", "0-2"])
async def test_a_cursor_that_the_log_does_not_hold_rewinds(
    client: httpx2.AsyncClient, new_author: NewAuthor, cursor: str, ended: bool
) -> None:
    """An absent attempt, or a seq above that attempt's last: `rewind` without an id, then everything from the start."""
    author = await new_author()
    await author.say("a", "b")
    if ended:
        await author.end()
    async with open_stream(client, author.job_id, cursor) as stream:
        first = await stream.frame()
        replayed = await stream.frame()
        await stream.until_id(author.last)
    assert first == {"type": "rewind"}
    assert replayed["id"] == "0-1"
    assert text_of(stream.frames) == "ab"


async def test_a_reader_whose_log_lost_a_tail_is_rewound_while_connected(
    client: httpx2.AsyncClient, new_author: NewAuthor
) -> None:
    """Rule 1, last sentence: as after a failover that forgot what readers have seen."""
    author = await new_author()
    await author.say("a", "b", "c")
    async with open_stream(client, author.job_id) as stream:
        await stream.until_id("1-3")
        await author.lose_after(EventId(1, 1))
        await stream.until("rewind")
        await stream.until_id("1-1")
        await author.say("B")
        await author.end()
        frames = await stream.to_end()
    rewound = frames[[frame["type"] for frame in frames].index("rewind") + 1 :]
    assert ids_of(rewound) == ["0-1", "1-0", "1-1", "1-2", "1-3"]
    assert text_of(rewound) == "aB"


async def test_a_reader_whose_place_was_lost_to_another_attempt_is_rewound(
    client: httpx2.AsyncClient, new_author: NewAuthor
) -> None:
    """The log is longer than its cursor again, but not by what it has: `started` names another id before it."""
    author = await new_author()
    await author.say("a", "b", "c")
    async with open_stream(client, author.job_id) as stream:
        await stream.until_id("1-3")
        await author.lose_after(EventId(1, 1))
        await author.claim(worker="w2")
        await author.say("B")
        await author.end()
        frames = await stream.to_end()
    rewound = frames[[frame["type"] for frame in frames].index("rewind") + 1 :]
    assert ids_of(rewound) == ["0-1", "1-0", "1-1", "2-0", "2-1", "2-2"]
    assert text_of(rewound) == "aB"


# --- rules 2 and 3: past the end, unknown --------------------------------------------------------------------------------


async def test_past_the_end_is_204_without_a_body(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    """A browser's EventSource stops reconnecting at it."""
    author = await new_author()
    last = await author.end()
    answer = await client.get(f"/v1/jobs/{author.job_id}/events", headers={"last-event-id": str(last)})
    assert answer.status_code == 204
    assert answer.content == b""


async def test_the_last_entry_of_an_open_log_is_not_the_end(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a")
    async with open_stream(client, author.job_id, author.last) as stream:
        assert stream.status == 200
        await author.end()
        assert ids_of(await stream.to_end()) == ["1-2"]


@pytest.mark.parametrize("job_id", ["job_" + "a" * 26, "job_1", "$", "a%00b", "job_" + "a" * 5000])
async def test_an_unknown_job_is_404(client: httpx2.AsyncClient, job_id: str) -> None:
    answer = await client.get(f"/v1/jobs/{job_id}/events")
    assert answer.status_code == 404
    assert answer.json()["code"] == "job_not_found"


async def test_an_erased_job_is_404(client: httpx2.AsyncClient, new_author: NewAuthor, job_queue: JobQueue) -> None:
    author = await new_author()
    await author.end()
    await job_queue.erase(author.job_id)
    assert (await client.get(f"/v1/jobs/{author.job_id}/events")).status_code == 404


@pytest.mark.parametrize("query", ["merge=2", "merge=", "heartbeat=often"])
async def test_an_option_that_is_none_is_400_and_names_the_field(
    client: httpx2.AsyncClient, new_author: NewAuthor, query: str
) -> None:
    author = await new_author()
    answer = await client.get(f"/v1/jobs/{author.job_id}/events?{query}")
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["field"] == query.partition("=")[0]


# --- rule 4: the opening -------------------------------------------------------------------------------------------------


async def test_it_opens_with_a_random_retry_in_range(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    """Settings of the tests say 10 to 20 ms; the defaults are the protocol's 1000 to 3000."""
    author = await new_author()
    await author.end()
    seen = set()
    for _ in range(40):
        body = (await client.get(f"/v1/jobs/{author.job_id}/events")).content
        match = re.match(rb"retry: (\d+)\n\n", body)
        assert match is not None
        seen.add(int(match[1]))
    assert seen <= set(range(10, 21))
    assert len(seen) > 3


# --- rule 5: replay, then live -------------------------------------------------------------------------------------------


async def test_a_replay_is_merged_and_proves_itself(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    """Protocol 3, merging: the frame's id is the last entry's, `n` says how many; other kinds and attempts stay apart."""
    author = await new_author()
    await author.put(Reasoning("h"), Reasoning("m"), Token("a"), Token("b"), ToolCall(0, id="c", name="f"))
    await author.put(ToolCall(0, arguments="{"), ToolCall(0, arguments="}"), ToolCall(1, id="d", name="g"), Token("c"))
    await author.claim()
    await author.say("d")
    await author.end()
    frames = await read_all(client, author.job_id)
    assert [(f["id"], f["type"], f.get("n", 1)) for f in frames] == [
        ("0-1", "queued", 1),
        ("1-0", "started", 1),
        ("1-2", "reasoning", 2),
        ("1-4", "token", 2),
        ("1-5", "tool_call", 1),
        ("1-7", "tool_call", 2),
        ("1-8", "tool_call", 1),
        ("1-9", "token", 1),
        ("2-0", "started", 1),
        ("2-1", "token", 1),
        ("2-2", "done", 1),
    ]
    assert frames[5]["arguments"] == "{}"


async def test_merge_0_never_merges(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a", "b", "c")
    async with open_stream(client, author.job_id, merge=0) as stream:
        await stream.until_id("1-3")
        await author.put(Token("d"), Token("e"))
        await author.end()
        frames = await stream.to_end()
    assert ids_of(frames) == ["0-1", "1-0", "1-1", "1-2", "1-3", "1-4", "1-5", "1-6"]
    assert all("n" not in frame for frame in frames)


async def test_a_cursor_inside_a_merged_frame_is_an_ordinary_id(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a", "b", "c", "d")
    await author.end()
    frames = await read_all(client, author.job_id, "1-2")
    assert [(frame["id"], frame.get("n", 1)) for frame in frames] == [("1-4", 2), ("1-5", 1)]


async def test_frames_stay_under_the_frame_limit(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    """64 KiB; one larger entry goes alone."""
    author = await new_author()
    await author.put(*[Token("x" * 1000) for _ in range(150)])
    await author.put(Token("y" * 100_000), Token("z"))
    await author.end()
    async with open_stream(client, author.job_id) as stream:
        frames = await stream.to_end()
    blocks = [block for block in stream.raw.split(b"\n\n") if block.startswith(b"id: 1-")]
    assert sorted(map(len, blocks))[-2] <= 64 * 1024
    tokens = [frame for frame in frames if frame["type"] == "token"]
    assert len(tokens) == 5  # 150 kB in three frames, the large one, the last
    assert text_of(frames) == "x" * 150_000 + "y" * 100_000 + "z"
    assert sum(frame.get("n", 1) for frame in tokens) == 152


async def test_a_replay_longer_than_a_page_is_whole(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    for start in range(0, 2500, 500):
        await author.put(*[Token(f"{i} ") for i in range(start, start + 500)])
    await author.end()
    frames = await read_all(client, author.job_id)
    assert text_of(frames) == "".join(f"{i} " for i in range(2500))
    assert frames[-1]["id"] == "1-2501"


async def test_live_each_entry_as_it_comes(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    async with open_stream(client, author.job_id) as stream:
        await stream.until_id("1-0")
        for word in ("Hel", "lo", "!"):
            await author.say(word)
            assert (await stream.frame())["text"] == word
        await author.end()
        assert (await stream.to_end())[-1]["type"] == "done"


async def test_two_readers_at_different_cursors_get_the_same_rest(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("a", "b", "c")
    async with (
        open_stream(client, author.job_id) as from_start,
        open_stream(client, author.job_id, "1-2") as from_middle,
        open_stream(client, author.job_id, "1-3") as at_end,
    ):
        await from_start.until_id("1-3")
        await from_middle.until_id("1-3")
        await author.say("d", "e")
        await author.end()
        assert text_of(await from_start.to_end()) == "abcde"
        assert text_of(await from_middle.to_end()) == "cde"
        assert text_of(await at_end.to_end()) == "de"


async def test_readers_that_come_and_go_while_it_writes_lose_and_double_nothing(
    base_url: str, client: httpx2.AsyncClient, new_author: NewAuthor
) -> None:
    """P1: replay and pushes meet without a seam, wherever a reader comes in. The reader itself counts lost and doubled."""
    author = await new_author()
    readers = []
    words = [f"w{i} " for i in range(200)]
    async with open_stream(client, author.job_id) as witness:  # keeps the tail alive between the readers
        for i, word in enumerate(words):
            await author.say(word)
            if i % 10 == 0:
                readers.append(JobReader(base_url, author.job_id, client=client))
                async for frame in readers[-1]:
                    if frame["type"] == "token":
                        break
        await author.end()
        assert text_of(await witness.to_end()) == "".join(words)
    for reader in readers:
        async for _ in reader:  # goes on at its cursor
            pass
        assert (reader.lost, reader.doubled) == (0, 0)
        assert reader.text == "".join(words)


async def test_a_second_takeover_is_live_too(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    async with open_stream(client, author.job_id) as stream:
        await author.say("a")
        await author.claim(reset=True, worker="w2")
        started = await stream.until_id("2-0")
        assert (started["reason"], started["reset"], started["after"]) == ("takeover", True, "1-1")
        await author.end(CANCELLED)
        assert (await stream.to_end())[-1]["type"] == "cancelled"


# --- pushes that get lost ------------------------------------------------------------------------------------------------


async def test_a_lost_push_is_made_up_for(client: httpx2.AsyncClient, redis: Redis, new_author: NewAuthor) -> None:
    """The last push before a silence reaches nobody; the comparison with the log (log_check_s) brings it all the same."""
    author = await new_author()
    async with open_stream(client, author.job_id) as stream:
        await stream.until_id("1-0")
        await redis.xadd(keys.log(author.job_id), {"t": "unheard"}, id="1-1")  # as written, but not pushed
        assert (await stream.until("token"))["text"] == "unheard"


async def test_a_broken_push_connection_is_made_up_for(client: httpx2.AsyncClient, redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    async with open_stream(client, author.job_id) as stream:
        await stream.until_id("1-0")
        await author.say("a")
        await stream.until_id("1-1")
        await redis.execute_command("CLIENT", "KILL", "TYPE", "pubsub")  # type: ignore[no-untyped-call]
        await author.say("b", "c")
        await stream.until_id("1-3")
        await wait_until(lambda: _followers(redis, author.job_id), message="the hub follows again")
        await author.say("d")
        await author.end()
        frames = await stream.to_end()
    assert text_of(frames) == "abcd"
    assert len(ids_of(frames)) == len(set(ids_of(frames)))


async def test_a_job_that_nobody_reads_is_not_followed(client: httpx2.AsyncClient, redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    async with open_stream(client, author.job_id) as stream:
        await stream.until_id("1-0")
        assert await _followers(redis, author.job_id)
    await wait_until(lambda: _nobody_follows(redis, author.job_id), message="the channel is left")


# --- the log goes away ---------------------------------------------------------------------------------------------------


async def test_a_job_erased_while_connected_ends_as_cancelled(
    client: httpx2.AsyncClient, new_author: NewAuthor, job_queue: JobQueue
) -> None:
    """Protocol 2, DELETE: readers that are live get the terminal event."""
    author = await new_author()
    async with open_stream(client, author.job_id) as stream:
        await stream.until_id("1-0")
        await job_queue.erase(author.job_id)
        frames = await stream.to_end()
    assert [(frame["id"], frame["type"]) for frame in frames[-2:]] == [("2-0", "started"), ("2-1", "cancelled")]


async def test_a_log_that_vanished_sends_its_readers_back(
    client: httpx2.AsyncClient, redis: Redis, new_author: NewAuthor
) -> None:
    """Expired or erased with its push lost: they come again, and are told 404."""
    author = await new_author()
    async with open_stream(client, author.job_id) as stream:
        await stream.until_id("1-0")
        await redis.delete(keys.log(author.job_id), keys.job(author.job_id))
        assert (await stream.to_end())[-1]["type"] == "reconnect"
    assert (await client.get(f"/v1/jobs/{author.job_id}/events")).status_code == 404


async def _followers(redis: Redis, job_id: str) -> bool:
    [(_, n)] = await redis.pubsub_numsub(keys.log(job_id))
    return bool(n)


async def _nobody_follows(redis: Redis, job_id: str) -> bool:
    return not await _followers(redis, job_id)
