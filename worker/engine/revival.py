"""Brings the jobs of a dead batch back, so that only the one that broke it fails. No torch.

    lost jobs ──one at a time──▶ a fresh batch ──made a token──▶ stays there; the next one joins it
                                               ──it died──▶ alone in it: this one fails; else it is tried alone, first of all

Their readers notice nothing but a pause: each goes on from the ids it has made. Whoever is tried alone ends or makes a token
before it can be lost again, so this comes to an end.
"""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

import structlog

from shared.errors import GenerationFailed

if TYPE_CHECKING:
    from worker.engine.batch import Batch, Request

log = structlog.get_logger(__name__)


class Revival:
    """`new_batch` starts a batch that nothing else joins meanwhile."""

    def __init__(self, lost: "Iterable[Request]", new_batch: "Callable[[], Batch]") -> None:
        self._waiting = deque(lost)
        self._new_batch = new_batch
        self._batch: Batch | None = None

    @property
    def requests(self) -> "list[Request]":
        """All that were not given back yet."""
        return [*self._waiting, *(self._batch.requests.values() if self._batch else ())]

    @property
    def batch(self) -> "Batch | None":
        """The one in which the revived go on; None where none is left."""
        return self._batch

    async def run(self) -> None:
        """Raises what starting a batch raises; whose turn did not come yet is in `requests`."""
        while self._waiting:
            if self._waiting[0].over:
                self._waiting.popleft()
            else:
                await self._try(self._waiting[0])

    async def _try(self, request: "Request") -> None:
        """Returns once the request made a token, ended, left, or its batch died."""
        alone = self._batch is None
        batch = self._batch = self._batch or self._new_batch()
        request.join(batch)
        self._waiting.popleft()
        await request.news.wait()
        if not batch.over.is_set():
            return
        self._batch = None
        lost = [one for one in batch.requests.values() if not one.over]
        if alone and lost:
            _fail(request, batch)
        else:
            # Whoever came last is the likeliest to be at fault.
            self._waiting.extendleft(sorted(lost, key=lambda one: one is request))


def _fail(request: "Request", batch: "Batch") -> None:
    if batch.began:
        log.error("a job breaks the batch; it fails alone", job=request.job_id, error=repr(batch.error))
        request.fail(GenerationFailed("internal", f"The local model fails at this prompt: {batch.error}", retryable=False))
    else:
        log.error("no batch can be started", job=request.job_id, error=repr(batch.error))
        request.fail(GenerationFailed("internal", f"The local model cannot run: {batch.error}", retryable=True))
