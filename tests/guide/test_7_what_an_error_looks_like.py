"""Errors: before the job there is problem+json with a stable `code`; after it, an event that ends the stream."""

import httpx2

from shared.errors import GenerationFailed
from tests.support.scripted_provider import ScriptedProvider
from tests.support.streams import open_stream


async def test_a_request_that_is_wrong_names_the_field(client: httpx2.AsyncClient) -> None:
    body = {"model": "openai/any", "messages": [{"role": "robot", "content": "hi"}], "temprature": 0.5}
    answer = await client.post("/v1/jobs", json=body)

    assert answer.status_code == 400
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "invalid_request"
    assert [error["field"] for error in problem["errors"]] == ["messages[0].role", "temprature"]


async def test_a_provider_that_fails_in_mid_answer(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider
) -> None:
    """The event says whether the same request may succeed later; the text so far stands and stays readable."""
    provider.script = ["Half an ", GenerationFailed("overloaded", "The provider is busy.")]
    job = (await client.post("/v1/jobs", json={"model": "openai/any", "prompt": "Say hello"})).json()
    async with open_stream(client, job["id"]) as stream:
        error = (await stream.to_end())[-1]

    assert (error["type"], error["code"], error["message"]) == ("error", "overloaded", "The provider is busy.")
    assert (error["retryable"], error["partial"]) == (True, True)
    failed = (await client.get(f"/v1/jobs/{job['id']}")).json()
    assert (failed["status"], failed["text"]) == ("failed", "Half an ")
    assert failed["error"] == {"code": "overloaded", "message": "The provider is busy.", "retryable": True}
