"""Submit a job, then follow it: the two calls that everything else is about."""

import httpx2

from cli.reader import JobReader
from tests.support.scripted_provider import ScriptedProvider


async def test_submit_answers_at_once_and_the_stream_tells_the_rest(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider, base_url: str
) -> None:
    provider.script = ["Hello", ", ", "world", "!"]

    submitted = await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})
    assert submitted.status_code == 202
    job = submitted.json()
    assert submitted.headers["location"] == f"/v1/jobs/{job['id']}"

    reader = JobReader(base_url, job["id"])
    frames = [frame async for frame in reader]

    assert frames[0]["type"] == "queued"
    assert frames[1]["type"] == "started"
    assert frames[-1]["type"] == "done"
    assert reader.text == "Hello, world!"


async def test_one_call_can_do_both(client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider) -> None:
    """`Accept: text/event-stream` on the submit answers with the stream itself. A reader that leaves does not stop the job."""
    headers = {"accept": "text/event-stream"}
    answer = await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"}, headers=headers)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/event-stream"
    assert '"type":"done"' in answer.text

    job = (await client.get(answer.headers["location"])).json()
    assert job["status"] == "done"
    assert job["text"] == "Hello, world"
