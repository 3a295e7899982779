"""`lastevent watch ID`: a job that somebody submitted, from its first event or from any other, replayed and then live.

Ctrl-C leaves the job running and says how to come back. Exit codes: 0 done, 1 the job failed, 2 there is nothing to read,
130 cancelled, or left by Ctrl-C.
"""

from cli.api import Api, with_api
from cli.follow import Follow, come_back
from cli.output import Output
from cli.reader import JobReader
from cli.signals import INTERRUPTED, unless_ctrl_c


async def run_watch(url: str, job_id: str, output: Output, *, cursor: str | None = None) -> int:
    """Follows the job to its end, and returns the exit code. `cursor`: only what came after this event."""

    async def watch(api: Api) -> int:
        follow, reader = Follow(api, output), JobReader(api.url, job_id, client=api.client, cursor=cursor)
        with follow.shown("connecting"):
            code = await unless_ctrl_c(_read(api, follow, reader, job_id))
            if code is None:
                follow.note(f"the job goes on; come back with: {come_back(api.url, job_id, reader.cursor)}")
                return INTERRUPTED
            return code

    return await with_api(url, output, watch)


async def _read(api: Api, follow: Follow, reader: JobReader, job_id: str) -> int:
    """Raises ApiError at once where no server, or none with this job, is there: only what was once lost is waited for."""
    await api.job(job_id)
    return await follow.to_the_end(reader, job_id)
