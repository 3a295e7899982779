"""Cancel: the provider is stopped, what was said stays, and every reader is told."""

import asyncio

import httpx2

from tests.support.scripted_provider import ScriptedProvider
from tests.support.streams import open_stream
from tests.support.waiting import wait_until


async def test_a_running_job(client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider) -> None:
    provider.script, provider.pace_s = ["so ", "far ", *["never mind "] * 1000], 0.01
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Talk"})).json()
    async with open_stream(client, job["id"]) as stream:
        await stream.until("token")

        asked = await client.post(f"/v1/jobs/{job['id']}/cancel")
        assert asked.status_code == 202  # the worker is told; the stream says when it is done
        frames = await stream.to_end()

    assert (frames[-1]["type"], frames[-1]["partial"]) == ("cancelled", True)
    assert provider.open == 0
    ended = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert ended["status"] == "cancelled"
    assert ended["text"].startswith("so ")
    assert ended["usage"]["output_tokens"] > 0


async def test_a_queued_job_is_cancelled_in_the_answer_itself(client: httpx2.AsyncClient) -> None:
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Nobody works here yet"})).json()
    answer = await client.post(f"/v1/jobs/{job['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


async def test_delete_cancels_and_forgets(client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider) -> None:
    provider.gate = asyncio.Event()
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Talk"})).json()
    async with open_stream(client, job["id"]) as stream:
        await stream.until("started")
        assert (await client.delete(f"/v1/jobs/{job['id']}")).status_code == 204
        assert (await stream.to_end())[-1]["type"] == "cancelled"
    assert (await client.get(f"/v1/jobs/{job['id']}")).status_code == 404
    await wait_until(lambda: provider.open == 0, message="the provider is stopped too")
