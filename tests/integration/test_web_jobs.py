"""The calls of protocol 2, row by row, over a real server; the log is the test's to write."""

import json
from typing import Any

import httpx2
import pytest
from redis.asyncio import Redis

from shared import keys
from shared.job_queue import JobQueue
from shared.job_store import JobStore
from tests.integration.conftest import NewAuthor
from tests.support.scripted_provider import ScriptedProvider
from tests.support.servers import Making, running_worker, web_server
from tests.support.streams import OpenStream, ids_of

BODY: dict[str, Any] = {"model": "openai/any", "prompt": "Say hello"}
UNKNOWN = "job_" + "a" * 26


def is_problem(answer: httpx2.Response, status: int, code: str) -> bool:
    """RFC 9457: the type of the body, its own status, and a stable slug."""
    body = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert set(body) >= {"type", "title", "status", "detail", "code"}
    assert body["status"] == answer.status_code
    assert (answer.status_code, body["code"]) == (status, code), body
    return True


# --- POST /v1/jobs -------------------------------------------------------------------------------------------------------


async def test_a_submit_answers_202_and_the_job(client: httpx2.AsyncClient, job_store: JobStore) -> None:
    answer = await client.post("/v1/jobs", json=BODY | {"metadata": {"who": "me"}})
    assert answer.status_code == 202
    job = answer.json()
    assert answer.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["status"], job["object"], job["last_event_id"], job["metadata"]) == ("queued", "job", "0-1", {"who": "me"})
    assert (await client.get(answer.headers["location"])).json() == job


async def test_a_submit_that_accepts_events_is_the_stream(
    client: httpx2.AsyncClient, job_queue: JobQueue, redis: Redis
) -> None:
    """200 and the job's event stream from its first event, same `Location`."""
    async with client.stream("POST", "/v1/jobs", json=BODY, headers={"accept": "text/event-stream"}) as response:
        stream = OpenStream(response)
        assert (stream.status, stream.headers["content-type"]) == (200, "text/event-stream")
        job_id = stream.headers["location"].removeprefix("/v1/jobs/")
        assert await stream.frame() | {"created_at": 0} == {
            "type": "queued", "job_id": job_id, "model": "openai/any", "created_at": 0, "id": "0-1",
        }  # fmt: skip
        await job_queue.cancel(job_id)
        assert ids_of(await stream.to_end()) == ["0-1", "0-2"]


async def test_a_reader_that_leaves_does_not_stop_the_job(
    client: httpx2.AsyncClient, make_settings: Making, provider: ScriptedProvider
) -> None:
    """P3."""
    provider.pace_s = 0.02
    async with running_worker(make_settings(), provider):
        async with client.stream("POST", "/v1/jobs", json=BODY, headers={"accept": "text/event-stream"}) as response:
            stream = OpenStream(response)
            await stream.until("token")
        follow = await client.get(stream.headers["location"] + "/events")
    assert '"type":"done"' in follow.text


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"model": None}, "model"),
        ({"model": "nobody/knows"}, "model"),
        ({"model": "local/smollm2-135m-instruct"}, "model"),  # a lane that is not configured here
        ({"temprature": 1}, "temprature"),
        ({"prompt": ""}, "prompt"),
        ({"messages": [{"role": "robot", "content": "hi"}], "prompt": None}, "messages[0].role"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"temperature": "hot"}, "temperature"),
        ({"timeouts": {"idle_s": -1}}, "timeouts.idle_s"),
        ({"timeouts": {"nap_s": 1}}, "timeouts.nap_s"),
        ({"metadata": {str(i): "x" for i in range(17)}}, "metadata"),
        ({"fallbacks": ["nobody/knows"]}, "fallbacks[0]"),
        ({"on_interrupt": "cry"}, "on_interrupt"),
    ],
)
async def test_validation_names_the_field(client: httpx2.AsyncClient, redis: Redis, change: dict[str, Any], field: str) -> None:
    """Protocol 2: `errors: [{"field": …, "message": …}]`; nothing is stored."""
    body = {name: value for name, value in {**BODY, **change}.items() if value is not None}
    answer = await client.post("/v1/jobs", json=body)
    assert is_problem(answer, 400, "invalid_request")
    assert field in [error["field"] for error in answer.json()["errors"]]
    assert await redis.keys("*") == []


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b'{"model":"openai/any","prompt":"\\ud800"}'])
async def test_a_body_that_is_no_request(client: httpx2.AsyncClient, body: bytes) -> None:
    answer = await client.post("/v1/jobs", content=body, headers={"content-type": "application/json"})
    assert is_problem(answer, 400, "invalid_request")


async def test_only_one_of_messages_and_prompt(client: httpx2.AsyncClient) -> None:
    both = BODY | {"messages": [{"role": "user", "content": "hi"}]}
    for body in (both, {"model": "openai/any"}):
        assert is_problem(await client.post("/v1/jobs", json=body), 400, "invalid_request")


async def test_a_stream_with_a_bad_option_submits_nothing(client: httpx2.AsyncClient, redis: Redis) -> None:
    answer = await client.post("/v1/jobs?merge=2", json=BODY, headers={"accept": "text/event-stream"})
    assert is_problem(answer, 400, "invalid_request")
    assert await redis.keys("*") == []


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_over_the_limit_is_413(make_settings: Making, announced: bool) -> None:
    async def chunks() -> Any:
        for _ in range(10):
            yield b" " * 1024

    async with web_server(make_settings(body_limit=4096)) as url, httpx2.AsyncClient(base_url=url) as client:
        content = b" " * 10_240 if announced else chunks()
        answer = await client.post("/v1/jobs", content=content, headers={"content-type": "application/json"})
        assert is_problem(answer, 413, "body_too_large")


async def test_a_full_queue_is_503_with_retry_after(make_settings: Making) -> None:
    async with web_server(make_settings(queue_limit=1)) as url, httpx2.AsyncClient(base_url=url) as client:
        assert (await client.post("/v1/jobs", json=BODY)).status_code == 202
        answer = await client.post("/v1/jobs", json=BODY)
    assert is_problem(answer, 503, "queue_full")
    assert int(answer.headers["retry-after"]) >= 1


async def test_the_same_idempotency_key_is_the_same_job(client: httpx2.AsyncClient) -> None:
    headers = {"idempotency-key": "order 17"}
    first = await client.post("/v1/jobs", json=BODY, headers=headers)
    again = await client.post("/v1/jobs", json=BODY, headers=headers)
    assert "idempotency-replayed" not in first.headers
    assert (again.status_code, again.headers["idempotency-replayed"]) == (202, "true")
    assert again.json() == first.json()
    conflict = await client.post("/v1/jobs", json=BODY | {"seed": 1}, headers=headers)
    assert is_problem(conflict, 409, "idempotency_conflict")


@pytest.mark.parametrize("key", ["", "k" * 256])
async def test_an_idempotency_key_has_bounds(client: httpx2.AsyncClient, key: str) -> None:
    answer = await client.post("/v1/jobs", json=BODY, headers={"idempotency-key": key})
    assert is_problem(answer, 400, "invalid_request")
    assert answer.json()["errors"][0]["field"] == "Idempotency-Key"


# --- one job -------------------------------------------------------------------------------------------------------------


async def test_get_is_the_job_as_it_stands(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    author = await new_author()
    await author.say("so far")
    job = (await client.get(f"/v1/jobs/{author.job_id}")).json()
    assert (job["status"], job["text"], job["last_event_id"], job["error"]) == ("running", "so far", "1-1", None)


async def test_cancel_a_queued_job_in_the_answer_itself(client: httpx2.AsyncClient, new_queued: NewAuthor) -> None:
    author = await new_queued()
    answer = await client.post(f"/v1/jobs/{author.job_id}/cancel")
    assert answer.status_code == 200
    job = answer.json()
    assert (job["status"], job["last_event_id"]) == ("cancelled", "0-2")
    assert job["timing"]["total_s"] >= 0


async def test_cancel_a_running_job_is_asked_for(client: httpx2.AsyncClient, new_author: NewAuthor) -> None:
    """202; whichever terminal event is written first stands, and a `done` that wins is the truth."""
    author = await new_author()
    answer = await client.post(f"/v1/jobs/{author.job_id}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (202, "running")
    await author.end()
    again = await client.post(f"/v1/jobs/{author.job_id}/cancel")
    assert (again.status_code, again.json()["status"]) == (200, "done")


async def test_delete_erases_it(client: httpx2.AsyncClient, redis: Redis, new_author: NewAuthor) -> None:
    author = await new_author()
    answer = await client.delete(f"/v1/jobs/{author.job_id}")
    assert (answer.status_code, answer.content) == (204, b"")
    assert is_problem(await client.get(f"/v1/jobs/{author.job_id}"), 404, "job_not_found")
    assert not await redis.exists(keys.job(author.job_id), keys.log(author.job_id))


async def test_what_is_ended_here_is_counted_once(
    client: httpx2.AsyncClient, new_author: NewAuthor, new_queued: NewAuthor
) -> None:
    """A worker counts what it ran to its end: not a job that was still waiting, and not one whose log is gone."""
    waiting, erased, running, ended = await new_queued(), await new_queued(), await new_author(), await new_author()
    await ended.end()
    for _ in range(2):
        await client.post(f"/v1/jobs/{waiting.job_id}/cancel")
    for job in (waiting, erased, running, ended):
        for _ in range(2):
            await client.delete(f"/v1/jobs/{job.job_id}")
    text = (await client.get("/metrics")).text
    assert sorted(line for line in text.splitlines() if line.startswith("lastevent_jobs_closed_total{")) == [
        'lastevent_jobs_closed_total{code="",status="cancelled"} 1.0',
        'lastevent_jobs_closed_total{code="",status="erased"} 2.0',
    ]


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/events")])
async def test_an_unknown_job_is_404(client: httpx2.AsyncClient, method: str, path: str) -> None:
    for job_id in (UNKNOWN, "nonsense"):
        assert is_problem(await client.request(method, f"/v1/jobs/{job_id}{path}"), 404, "job_not_found")


# --- the listing ---------------------------------------------------------------------------------------------------------


async def test_the_listing_pages_newest_first(client: httpx2.AsyncClient, new_queued: NewAuthor, redis: Redis) -> None:
    ids = [(await new_queued()).job_id for _ in range(3)]
    await redis.zadd(keys.JOBS, {job_id: i for i, job_id in enumerate(ids)})
    first = (await client.get("/v1/jobs", params={"limit": 2})).json()
    assert first["object"] == "list"
    assert [job["id"] for job in first["data"]] == ids[:0:-1]
    rest = (await client.get("/v1/jobs", params={"limit": 2, "after": first["next"]})).json()
    assert ([job["id"] for job in rest["data"]], rest["next"]) == (ids[:1], None)
    assert (await client.get("/v1/jobs", params={"status": "done"})).json()["data"] == []


@pytest.mark.parametrize(
    ("query", "field"),
    [("limit=0", "limit"), ("limit=101", "limit"), ("limit=x", "limit"), ("limit=٣", "limit"), ("status=lost", "status"),
     (f"after={UNKNOWN}", "after"), ("afte=x", "afte")],
)  # fmt: skip
async def test_the_listing_names_the_parameter_that_is_wrong(client: httpx2.AsyncClient, query: str, field: str) -> None:
    answer = await client.get(f"/v1/jobs?{query}")
    assert is_problem(answer, 400, "invalid_request")
    assert answer.json()["errors"][0]["field"] == field


# --- the rest of the table -----------------------------------------------------------------------------------------------


async def test_models(client: httpx2.AsyncClient) -> None:
    body = (await client.get("/v1/models")).json()
    assert body["object"] == "list"
    assert {model["object"] for model in body["data"]} == {"model"}
    ids = [model["id"] for model in body["data"]]
    assert "openai/gpt-4o-mini" in ids
    assert not [model_id for model_id in ids if model_id.startswith("local/")], "its lane is not configured here"


async def test_workers_and_readiness(client: httpx2.AsyncClient, make_settings: Making, provider: ScriptedProvider) -> None:
    assert (await client.get("/v1/workers")).json() == {"data": []}
    unready = await client.get("/readyz")
    assert is_problem(unready, 503, "unavailable")
    assert "api" in unready.json()["detail"]
    async with running_worker(make_settings(anthropic_api_key=""), provider) as process:
        [worker] = (await client.get("/v1/workers")).json()["data"]
        assert set(worker) == {"id", "lane", "host", "pid", "running", "slots", "started_at", "missing_keys"}
        assert worker["missing_keys"] == {"anthropic": "ANTHROPIC_API_KEY"}, "openai/ is a server of one's own here"
        models = (await client.get("/v1/models")).json()["data"]
        assert {m["missing_key"] for m in models if m["owned_by"] == "anthropic"} == {"ANTHROPIC_API_KEY"}
        assert worker["id"] == process.identity.id
        assert (await client.get("/readyz")).status_code == 200
    assert (await client.get("/healthz")).json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("method", "path"),
    [("PUT", "/v1/jobs"), ("POST", f"/v1/jobs/{UNKNOWN}"), ("GET", f"/v1/jobs/{UNKNOWN}/cancel"), ("POST", "/v1/models")],
)
async def test_a_method_that_a_path_lacks_is_405(client: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert is_problem(answer, 405, "method_not_allowed")
    assert "allow" in answer.headers


@pytest.mark.parametrize("path", ["/v2/jobs", "/v1", "/v1/jobs/a/b/c", "/../etc/passwd", "/page.html"])
async def test_a_path_that_is_none_is_404(client: httpx2.AsyncClient, path: str) -> None:
    assert is_problem(await client.get(path), 404, "not_found")


async def test_a_fault_of_ours_is_500_and_tells_no_secret(
    client: httpx2.AsyncClient, redis: Redis, new_queued: NewAuthor
) -> None:
    author = await new_queued()
    await redis.hset(keys.job(author.job_id), "created_at", "a secret")  # type: ignore[misc]
    answer = await client.get(f"/v1/jobs/{author.job_id}")
    assert is_problem(answer, 500, "internal")
    assert "secret" not in json.dumps(answer.json())


async def test_the_page_and_its_files(client: httpx2.AsyncClient) -> None:
    page = await client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'none'; script-src 'self'" in page.headers["content-security-policy"]
    module = await client.get("/lastevent.js")
    assert module.headers["content-type"].startswith("text/javascript")
    assert module.headers["x-content-type-options"] == "nosniff"
