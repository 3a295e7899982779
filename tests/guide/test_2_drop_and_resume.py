"""Drop the connection anywhere, come back with Last-Event-ID: the rest follows, nothing is lost, nothing comes twice."""

import asyncio

import httpx2

from tests.support.scripted_provider import ScriptedProvider
from tests.support.streams import open_stream, text_of


async def test_last_event_id_is_all_that_a_reader_needs_to_keep(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider
) -> None:
    provider.script = ["one ", "two ", "three ", "four"]
    provider.gate = asyncio.Event()
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Count"})).json()

    heard, cursor = "", None
    async with open_stream(client, job["id"]) as stream:
        provider.gate.set()
        while "two" not in heard:
            frame = await stream.frame()
            heard, cursor = heard + text_of([frame]), frame["id"]
    # The connection is gone, and with it whatever it had brought since; the job goes on without its reader.

    async with open_stream(client, job["id"], cursor) as stream:
        rest = await stream.to_end()
    assert heard + text_of(rest) == "one two three four"
    assert rest[-1]["type"] == "done"


async def test_whoever_has_everything_is_told_204(client: httpx2.AsyncClient, worker: None) -> None:
    """A browser's EventSource reconnects after every end, until it is told that there is nothing more."""
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})).json()
    async with open_stream(client, job["id"]) as stream:
        frames = await stream.to_end()

    answer = await client.get(job["events_url"], headers={"Last-Event-ID": frames[-1]["id"]})
    assert answer.status_code == 204


async def test_ids_prove_that_nothing_is_missing(client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider) -> None:
    """A replay comes in few frames. Each says how many entries it stands for, and its id is the last one's, so that within an
    attempt `seq == previous seq + n` holds for every frame."""
    provider.script = list("a long answer")
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})).json()
    async with open_stream(client, job["id"]) as stream:
        await stream.to_end()

    async with open_stream(client, job["id"]) as replay:
        queued, started, answer, done = await replay.to_end()
    assert (queued["id"], started["id"]) == ("0-1", "1-0")
    assert (answer["id"], answer["n"], answer["text"]) == ("1-13", 13, "a long answer")
    assert done["id"] == "1-14"
