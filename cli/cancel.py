"""`lastevent cancel ID` and `lastevent delete ID`: what is told is what became of the job, not what was asked for.

Exit codes: 0 the job has ended, or is gone; 2 there is no such job, or nobody to ask; 130 left by Ctrl-C before its end.
"""

from functools import partial
from typing import Any

from cli.api import Api, ApiError, with_api
from cli.output import Output, counted, print_line
from cli.reader import JobReader, StreamLost, StreamRefused
from cli.signals import INTERRUPTED, unless_ctrl_c

_OPEN = ("queued", "running")


async def run_cancel(url: str, job_id: str, output: Output) -> int:
    """Cancels the job and waits for its last event, a tenth of a second where its worker lives. Returns the exit code."""
    return await with_api(url, output, partial(_cancel, job_id=job_id, output=output))


async def run_delete(url: str, job_id: str, output: Output) -> int:
    """Erases the job, cancelling it first where it is open. Returns the exit code."""

    async def delete(api: Api) -> int:
        await api.delete(job_id)
        if output.as_json:
            output.document({"id": job_id, "deleted": True})
        else:
            print_line(output.out, "", f"{job_id} is deleted, with all its text")
        return 0

    return await with_api(url, output, delete)


async def _cancel(api: Api, job_id: str, output: Output) -> int:
    before = await api.job(job_id)
    was_open = before["status"] in _OPEN
    job = await unless_ctrl_c(_until_ended(api, job_id)) if was_open else before
    if job is None:
        print_line(output.err, "", "the job was asked to stop; its end was not waited for", style="dim")
        return INTERRUPTED
    if output.as_json:
        output.document(job)
    else:
        print_line(output.out, "", _what_became(job, was_open=was_open))
    return 0


async def _until_ended(api: Api, job_id: str) -> dict[str, Any]:
    """Cancels the job; the Job once it has ended. Raises ApiError."""
    job = await api.cancel(job_id)
    if job["status"] not in _OPEN:
        return job
    reader = JobReader(api.url, job_id, client=api.client, cursor=job["last_event_id"])
    try:
        async for _ in reader:
            pass
    except (StreamLost, StreamRefused) as error:
        raise ApiError(f"the job was asked to stop, but its end was not seen: {error}") from None
    return await api.job(job_id)


def _what_became(job: dict[str, Any], *, was_open: bool) -> str:
    tokens = counted(job["usage"]["output_tokens"], "token")
    if not was_open:
        return f"{job['id']} had ended before: {job['status']}, {tokens}"
    if job["status"] == "cancelled":
        return f"{job['id']} is cancelled, after {tokens}"
    return f"{job['id']} ended before the cancel reached it: {job['status']}, {tokens}"
