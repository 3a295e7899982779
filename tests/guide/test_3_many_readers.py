"""Any number of readers share a job, wherever and whenever they come in: a log is read, a queue would be emptied."""

import asyncio

import httpx2

from cli.reader import JobReader
from tests.support.scripted_provider import ScriptedProvider
from tests.support.streams import open_stream


async def test_early_and_late_readers_hold_the_same(
    client: httpx2.AsyncClient, base_url: str, worker: None, provider: ScriptedProvider
) -> None:
    provider.script, provider.gate = ["all ", "read ", "the ", "same"], asyncio.Event()
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})).json()

    async def read() -> JobReader:
        reader = JobReader(base_url, job["id"], client=client)
        async for _ in reader:
            pass
        return reader

    early = [asyncio.create_task(read()) for _ in range(5)]
    async with open_stream(client, job["id"]) as stream:
        await stream.until("started")
        provider.gate.set()
        await stream.to_end()
    late = await read()

    for reader in [*await asyncio.gather(*early), late]:
        assert reader.text == "all read the same"
        assert (reader.lost, reader.doubled) == (0, 0)


async def test_without_any_reader_the_job_is_done_all_the_same(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider
) -> None:
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})).json()
    first_reader = (await client.get(job["events_url"])).text
    assert '"type":"done"' in first_reader
    assert len(provider.calls) == 1
