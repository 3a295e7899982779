"""A reader of a chaos run: the command line's own, which cuts its connection where its plan says and goes to the other web."""

import time
from collections.abc import Callable

from cli.reader import JobReader, StreamLost, StreamRefused
from tests.chaos.plan import JobPlan, ReaderPlan
from tests.chaos.scene import Scene

Felt = Callable[["Wanderer", float], bool]
"""Whether a token that came at a moment shows that the reader got over a fault."""

_PATIENCE_S = 600.0
"""The run itself decides who is stuck."""


class Forgotten(Exception):
    """404: Redis knows nothing of a job that was answered 202."""


class Wanderer:
    """Reads one job to its end. `waits` are the faults that it is to get over: what to call once it has."""

    def __init__(self, scene: Scene, job: JobPlan, plan: ReaderPlan) -> None:
        self.job, self.rewinds, self.web = job, 0, plan.web
        self.waits: list[tuple[Felt, Callable[[float], None]]] = []
        self.reader: JobReader | None = None
        self._scene, self._plan = scene, plan
        self._cuts = list(plan.cuts)

    @property
    def streams(self) -> bool:
        """Whether it is in the middle of a text."""
        return self.reader is not None and self.reader.terminal is None and bool(self.reader.text)

    @property
    def worker(self) -> str:
        """The worker that writes its job, as far as it knows."""
        return self.reader.attempts[-1]["worker"] if self.reader is not None and self.reader.attempts else ""

    @property
    def attempt(self) -> int:
        return self.reader.attempts[-1]["attempt"] if self.reader is not None and self.reader.attempts else 0

    @property
    def connections(self) -> int:
        return self.reader.connections if self.reader is not None else 0

    async def read(self, job_id: str) -> None:
        """Returns after the terminal event.

        Raises:
            Forgotten
            StreamRefused, StreamLost: no reader should ever see these here.
        """
        self.reader = reader = JobReader(
            self._scene.urls[self.web], job_id, client=self._scene.http, merge=self._plan.merge, give_up_after_s=_PATIENCE_S
        )
        frames = 0
        try:
            async for frame in reader:
                frames += 1
                if frame["type"] in ("dropped", "reconnect"):
                    self._move(job_id)
                elif frame["type"] == "rewind":
                    self.rewinds += 1
                elif frame["type"] in ("token", "done"):
                    self._tell(time.monotonic())
                if self._cuts and frames >= self._cuts[0]:
                    frames = 0
                    del self._cuts[0]
                    reader.drop()
        except StreamRefused as refused:
            if refused.status == 404:
                raise Forgotten from None
            raise

    def _move(self, job_id: str) -> None:
        """The next connection is made at the other web, as behind a balancer."""
        assert self.reader is not None, "it reads"
        self.web = 1 - self.web
        self.reader.url = self.reader.url.replace(self._scene.urls[1 - self.web], self._scene.urls[self.web])

    def _tell(self, at: float) -> None:
        over = [wait for wait in self.waits if wait[0](self, at)]
        self.waits = [wait for wait in self.waits if wait not in over]
        for _, call in over:
            call(at)


__all__ = ["Forgotten", "StreamLost", "StreamRefused", "Wanderer"]
