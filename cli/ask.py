"""`lastevent ask`: one job, streamed to the terminal; it reconnects by itself, and Ctrl-C cancels the job.

Exit codes: 0 done, 1 the job failed, 2 it could not be asked or read, 130 cancelled.
"""

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from cli.api import Api, ApiError, with_api
from cli.follow import Follow
from cli.output import Output
from cli.reader import JobReader
from cli.signals import INTERRUPTED, on_ctrl_c


async def run_ask(url: str, request: Mapping[str, Any], output: Output, *, detach: bool = False) -> int:
    """Submits the request, follows its job to the end, and returns the exit code. What is None in the request is left out;
    without a model it is the server's first. `detach` prints the job's id, or with `--json` the Job, and follows nothing.
    """
    asked = {name: value for name, value in request.items() if value is not None}
    act = partial(_detached, request=asked, output=output) if detach else partial(_followed, request=asked, output=output)
    return await with_api(url, output, act)


async def _detached(api: Api, request: dict[str, Any], output: Output) -> int:
    job = await _submit(api, request)
    if output.as_json:
        output.document(job)
    else:
        output.write(f"{job['id']}\n")
    return 0


async def _followed(api: Api, request: dict[str, Any], output: Output) -> int:
    return await _Ask(api, output).run(request)


async def _submit(api: Api, request: dict[str, Any]) -> dict[str, Any]:
    model = request.get("model") or await api.first_model()
    return await api.submit({**request, "model": model})


class _Ask:
    """One question that is followed."""

    def __init__(self, api: Api, output: Output) -> None:
        self._api = api
        self._follow = Follow(api, output)
        self._job_id: str | None = None
        self._cancelling: asyncio.Task[None] | None = None
        self._left = False

    async def run(self, request: dict[str, Any]) -> int:
        task = asyncio.current_task()
        assert task is not None
        with on_ctrl_c(partial(self._interrupt, task)), self._follow.shown("submitting"):
            try:
                job = await _submit(self._api, request)
                self._job_id = job["id"]
                return await self._follow.to_the_end(JobReader(self._api.url, job["id"], client=self._api.client), job["id"])
            except asyncio.CancelledError:
                if not self._left:
                    raise
                task.uncancel()
                return INTERRUPTED
            finally:
                if self._cancelling is not None:
                    self._cancelling.cancel()
                    await asyncio.wait({self._cancelling})

    def _interrupt(self, task: asyncio.Task[Any]) -> None:
        """Ctrl-C: the first one cancels the job, the next one, or one before there is a job, leaves."""
        if self._job_id is not None and self._cancelling is None:
            self._follow.note("cancelling the job; Ctrl-C again leaves at once")
            self._cancelling = asyncio.ensure_future(self._cancel(self._job_id))
        else:
            self._left = True
            task.cancel()

    async def _cancel(self, job_id: str) -> None:
        try:
            await self._api.cancel(job_id)
        except ApiError as error:
            self._follow.note(f"the cancel did not get through: {error}")
