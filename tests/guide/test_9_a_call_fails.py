"""A provider's call fails: it is tried again, or another model is asked, and the reader sees each as an attempt."""

import httpx2

from shared.errors import GenerationFailed
from tests.support.scripted_provider import ScriptedProvider
from tests.support.streams import read_all, text_of


async def test_what_may_pass_is_tried_again(client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider) -> None:
    provider.scripts = [[GenerationFailed("overloaded", "openai/any failed (503).")]]
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})).json()
    frames = await read_all(client, job["id"])

    started = [frame for frame in frames if frame["type"] == "started"]
    assert [(frame["attempt"], frame["reason"]) for frame in started] == [(1, "first"), (2, "retry")]
    assert text_of(frames) == "Hello, world"


async def test_what_would_fail_again_goes_to_the_next_model(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider
) -> None:
    """`fallbacks` are tried in order; the Job tells what each attempt failed with."""
    provider.scripts = [[GenerationFailed("auth", "openai/any refused the key (401).")]]
    body = {"model": "openai/any", "prompt": "Say hello", "fallbacks": ["openai/other"]}
    job = (await client.post("/v1/jobs", json=body)).json()
    frames = await read_all(client, job["id"])
    assert text_of(frames) == "Hello, world"

    job = (await client.get(f"/v1/jobs/{job['id']}")).json()
    first, second = job["attempts"]
    assert (first["model"], first["error"]["code"]) == ("openai/any", "auth")
    assert (second["model"], second["reason"], second["error"]) == ("openai/other", "fallback", None)


async def test_text_that_the_next_attempt_cannot_go_on_from_is_discarded(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider
) -> None:
    """`reset: true` says so; never are two answers mixed."""
    provider.scripts = [["Hel", GenerationFailed("connection", "The connection to openai/any broke.")]]
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})).json()
    frames = await read_all(client, job["id"])

    [retry] = [i for i, frame in enumerate(frames) if frame.get("reason") == "retry"]
    assert frames[retry]["reset"] is True
    assert (text_of(frames[:retry]), text_of(frames[retry:])) == ("Hel", "Hello, world")
