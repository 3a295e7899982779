"""A cancel stops the provider within 100 ms of the answer to the call, whatever process runs the job (P6)."""

import time

from tests.support.stack import Stack, figure
from tests.support.truth import assert_all_sound, assert_nothing_is_left_in_the_queue, counted_text
from tests.support.waiting import wait_until
from worker.tokens import load_encoding

CANCELS = 20


async def test_the_provider_is_left_within_100_ms_of_the_answer(stack: Stack) -> None:
    await stack.start(workers=2)
    job_ids = [await stack.submit(1000 + i, 20) for i in range(CANCELS)]
    readings = [stack.read(job_id) for job_id in job_ids]
    for reading in readings:
        await reading.until_words(5)

    late_s = []
    for i, (job_id, reading) in enumerate(zip(job_ids, readings, strict=True)):
        answer = await stack.http.post(f"/v1/jobs/{job_id}/cancel")
        answered_at = time.monotonic()
        assert answer.status_code == 202
        (request,) = stack.upstream.of(f"count:{1000 + i}:20")
        await wait_until(lambda request=request: request.left_at is not None, message="the worker hung up")  # type: ignore[misc]
        assert request.left_at is not None
        late_s.append(request.left_at - answered_at)
        await reading.to_the_end()
        assert (reading.reader.lost, reading.reader.doubled, reading.ended) == (0, 0, "cancelled")
        job = await stack.job(job_id)
        assert job["status"] == "cancelled"
        assert job["text"] == reading.reader.text == counted_text(1000)[: len(job["text"])] != ""
        assert job["usage"]["output_tokens"] == len(load_encoding().encode_ordinary(job["text"]))

    late_s.sort()
    figure(f"cancel, answer to hang-up, p50 of {CANCELS}", late_s[CANCELS // 2], 0.1)
    figure(f"cancel, answer to hang-up, p99 of {CANCELS}", late_s[-1], 0.1)
    assert {request.done_at for request in stack.upstream.requests} == {None}
    await assert_all_sound(stack.redis, job_ids)
    await assert_nothing_is_left_in_the_queue(stack.redis, job_ids)


async def test_without_a_worker_no_provider_is_called_again(stack: Stack) -> None:
    """A queued job is `cancelled` in the answer itself; one whose worker is dead, by the next claim."""
    await stack.start()
    running = await stack.submit(1000, 40)
    reading = stack.read(running)
    await reading.until_words(10)
    await stack.kill_owner_of(running)
    queued = await stack.submit(5, 0)

    answer = await stack.http.post(f"/v1/jobs/{queued}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert [str(entry.id) for entry in await stack.log(queued)] == ["0-1", "0-2"]
    assert (await stack.http.post(f"/v1/jobs/{running}/cancel")).status_code == 202
    stack.worker()
    await reading.to_the_end()

    assert (reading.reader.lost, reading.reader.doubled, reading.ended) == (0, 0, "cancelled")
    assert (await stack.job(running))["text"] == reading.reader.text != ""
    assert len(stack.upstream.requests) == 1
    await assert_all_sound(stack.redis, [running, queued])
    await assert_nothing_is_left_in_the_queue(stack.redis, [running, queued])
