"""A budget of tokens: the answer stops there, and the Job tells what it cost and how fast it came."""

import httpx2

from shared.errors import GenerationFailed
from tests.support.scripted_provider import ScriptedProvider
from tests.support.streams import read_all, text_of


async def test_an_answer_stops_at_its_budget_also_within_a_sentence(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider
) -> None:
    provider.script = ["It was the best of times,", " it was the worst of times."]
    body = {"model": "openai/any", "prompt": "How does it begin?", "token_budget": 10}
    job = (await client.post("/v1/jobs", json=body)).json()
    frames = await read_all(client, job["id"])

    assert text_of(frames) == "It was the best of times, it was the"
    assert (frames[-1]["type"], frames[-1]["finish_reason"]) == ("done", "budget")
    assert provider.open == 0, "the provider was closed: what nobody wants is not paid for"


async def test_usage_and_timing_are_told_at_the_end(
    client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider
) -> None:
    """The provider's own count wins; where it told none, as here, ours is marked."""
    provider.script, provider.pace_s = ["It was", " the", " best of times."], 0.02
    body = {"model": "openai/any", "prompt": "How does it begin?", "token_budget": 5}
    job = (await client.post("/v1/jobs", json=body)).json()
    end = (await read_all(client, job["id"]))[-1]
    job = (await client.get(f"/v1/jobs/{job['id']}")).json()

    assert job["usage"] == end["usage"]
    assert (job["usage"]["output_tokens"], job["usage"]["estimated"]) == (5, True)
    assert job["usage"]["input_tokens"] > 5
    timing = job["timing"]
    assert timing == end["timing"]
    assert 0 < timing["queue_s"] < timing["ttft_s"] < timing["total_s"]
    assert timing["inter_token_p99_s"] >= timing["inter_token_p50_s"] > 0.015
    assert 10 < timing["tokens_per_s"] < 100, "two tokens, then three, 20 ms apart"


async def test_the_budget_is_one_for_all_attempts(client: httpx2.AsyncClient, worker: None, provider: ScriptedProvider) -> None:
    """An attempt that goes on from the text of a failed one gets what is left."""
    provider.continues = True
    provider.scripts = [["It was", " the best", GenerationFailed("connection", "The connection to openai/any broke.")]]
    provider.script = ["It was", " the best", " of times, it was the worst of times."]
    body = {"model": "openai/any", "prompt": "How does it begin?", "token_budget": 6}
    job = (await client.post("/v1/jobs", json=body)).json()
    frames = await read_all(client, job["id"])

    assert text_of(frames) == "It was the best of times"
    assert frames[-1]["finish_reason"] == "budget"
