"""What is seen of real processes from outside: their logs, their metrics, and one id through all of them."""

import json
import re
from typing import Any, Final

import httpx2

from tests.support.stack import Stack
from tests.support.waiting import wait_until

ID: Final = "edge-7f3a"
ABOUT_A_JOB: Final = ("job", "attempt", "lane", "worker")


def lines_of(stack: Stack, process: str) -> list[dict[str, Any]]:
    """A process' log; each line must be an object."""
    [log] = re.findall(rf"--- \d+-{process}\.log\n(.*?)(?=\n--- |\Z)", stack.processes.logs(), re.DOTALL)
    return [json.loads(line) for line in log.splitlines() if line]


async def metrics_of(url: str) -> str:
    async with httpx2.AsyncClient() as client:
        return (await client.get(url)).text


async def test_a_job_can_be_followed_through_logs_and_metrics(stack: Stack) -> None:
    stack.processes.start("web", "--port", str(stack.processes.port), log_json="1", log_level="debug")
    stack.worker(log_json="1", worker_metrics_port=0)
    await stack.processes.ready()
    body = {"model": "openai/count:20:0", "prompt": "Count to a secret"}
    submitted = await stack.http.post("/v1/jobs?token=secret", json=body, headers={"X-Request-ID": ID})
    job_id = submitted.json()["id"]
    reading = stack.read(job_id)
    await reading.to_the_end()
    await wait_until(lambda: "frames" in str(lines_of(stack, "web")), message="the stream's line")

    assert submitted.headers["x-request-id"] == ID
    [upstream] = stack.upstream.requests
    assert upstream.headers["x-request-id"] == ID
    assert await stack.field(job_id, "request_id") == ID

    of_worker, of_web = lines_of(stack, "worker"), lines_of(stack, "web")
    of_job = [line for line in of_worker if "job" in line]
    assert {"attempt started", "job ended"} <= {line["event"] for line in of_job}
    assert all(line[name] for line in of_job for name in ABOUT_A_JOB)
    assert all((line["job"], line["request_id"]) == (job_id, ID) for line in of_job)
    [submit] = [line for line in of_web if line.get("method") == "POST"]
    assert (submit["job"], submit["status"], submit["request_id"], submit["path"]) == (job_id, 202, ID, "/v1/jobs")
    [stream] = [line for line in of_web if "frames" in line]
    assert (stream["job"], stream["why"], stream["at"]) == (job_id, "ended", reading.reader.cursor)
    assert stream["frames"] >= 3, "queued, started, done, and text between them"
    assert "secret" not in stack.processes.logs()

    [ready] = [line for line in of_worker if line["event"] == "worker is ready"]
    of_the_worker, of_the_web = await metrics_of(ready["metrics"]), (await stack.http.get("/metrics")).text
    assert 'lastevent_attempts_total{reason="first"} 1.0' in of_the_worker
    assert 'lastevent_tokens_total{kind="text"} 20.0' in of_the_worker
    assert re.search(r'gen_ai_client_token_usage_count\{.*gen_ai_token_type="output"\} 1\.0', of_the_worker)
    assert re.search(r"lastevent_append_seconds_count [1-9]", of_the_worker)
    assert re.search(r'lastevent_queue_wait_seconds_count\{lane="api"\} 1\.0', of_the_worker)
    assert 'lastevent_submits_total{provider="openai"} 1.0' in of_the_web
    assert re.search(r"lastevent_frames_total [1-9]", of_the_web)
