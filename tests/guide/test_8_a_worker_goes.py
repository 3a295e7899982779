"""The worker that writes an answer is stopped, another goes on: the reader's text has no gap and no double.

`tests/system/` does the same to real processes, with SIGKILL."""

import asyncio

import httpx2

from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, running_worker
from tests.support.streams import open_stream, text_of


async def submit_and_lose_the_worker(
    client: httpx2.AsyncClient, make_settings: Making, provider: ScriptedProvider
) -> list[dict[str, object]]:
    """What one reader is sent whose job changes workers in mid-answer."""
    provider.script, provider.pace_s = ["The ", "answer ", "is ", "forty-two."], 0.02
    provider.gate = asyncio.Event()
    provider.gate.set()
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "What is it?"})).json()
    async with open_stream(client, job["id"], merge=0) as stream:
        async with running_worker(make_settings(), provider):
            await stream.until("token")
            provider.gate.clear()
        async with running_worker(make_settings(), provider):
            provider.gate.set()
            return await stream.to_end()


async def test_where_the_model_can_go_on_the_text_goes_on(
    client: httpx2.AsyncClient, make_settings: Making, provider: ScriptedProvider
) -> None:
    provider.continues = True
    frames = await submit_and_lose_the_worker(client, make_settings, provider)

    started = [frame for frame in frames if frame["type"] == "started"]
    assert [(frame["reason"], frame["reset"]) for frame in started] == [("first", False), ("handover", False)]
    assert text_of(frames) == "The answer is forty-two."


async def test_where_it_cannot_the_reader_starts_over(
    client: httpx2.AsyncClient, make_settings: Making, provider: ScriptedProvider
) -> None:
    """`reset: true`: discard all text so far."""
    frames = await submit_and_lose_the_worker(client, make_settings, provider)

    [second] = [i for i, frame in enumerate(frames) if frame["id"] == "2-0"]
    assert frames[second]["reset"] is True
    assert text_of(frames[second:]) == "The answer is forty-two."
