"""A page that is reloaded has lost its cursor: it asks for the Job, shows its text, and streams on from `last_event_id`."""

import asyncio

import httpx2

from tests.support.scripted_provider import ScriptedProvider
from tests.support.streams import open_stream, text_of


async def test_snapshot_then_stream(client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider) -> None:
    provider.script, provider.gate = ["Before ", "the reload, ", "and after"], asyncio.Event()
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})).json()
    async with open_stream(client, job["id"]) as before:
        provider.gate.set()
        await before.until("token")

    snapshot = (await client.get(f"/v1/jobs/{job['id']}")).json()
    async with open_stream(client, job["id"], last_event_id=snapshot["last_event_id"]) as after:
        rest = await after.to_end() if after.status == 200 else []  # 204: the snapshot was whole already

    assert snapshot["text"] + text_of(rest) == "Before the reload, and after"
