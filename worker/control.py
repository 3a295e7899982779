"""What is said to a running job from outside it, stop and why; and what the job says when it leaves."""

import asyncio
from typing import Literal, NamedTuple

StopReason = Literal["cancel", "lost", "handover"]
"""`cancel`: somebody asked for its end. `lost`: the lease or the job is another's, or gone. `handover`: this worker stops."""


class Leave(NamedTuple):
    """`over`: ended here, or elsewhere. `lost`: another's now. `handover`: open, for the next worker at once.
    `later`: open, to be looked at again after `after_ms`."""

    how: Literal["over", "lost", "handover", "later"]
    after_ms: int = 0


class Control:
    """One running job's off switch. The first reason stands: a job that was lost cannot be cancelled here any more."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._work: asyncio.Task[object] | None = None

    def stop(self, reason: StopReason) -> None:
        if self.reason is not None:
            return
        self.reason = reason
        if self._work is not None:
            self._work.cancel()

    def watch(self, work: "asyncio.Task[object] | None") -> None:
        """The task that a stop cancels: the provider's stream, never the writing of the end."""
        self._work = work
        if work is not None and self.reason is not None:
            work.cancel()


class Running:
    """The jobs of this process by id."""

    def __init__(self) -> None:
        self._controls: dict[str, Control] = {}
        self._told_all: StopReason | None = None

    def __len__(self) -> int:
        return len(self._controls)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._controls

    def add(self, job_id: str) -> Control:
        control = self._controls[job_id] = Control()
        if self._told_all is not None:
            control.stop(self._told_all)
        return control

    def remove(self, job_id: str) -> None:
        self._controls.pop(job_id, None)

    def stop(self, job_id: str, reason: StopReason) -> None:
        """Harmless for a job that is not here any more: signals and ends cross."""
        control = self._controls.get(job_id)
        if control is not None:
            control.stop(reason)

    def stop_all(self, reason: StopReason) -> None:
        """Those too that are leased already and begin only now: arq reads a job's payload first."""
        self._told_all = reason
        for control in list(self._controls.values()):
            control.stop(reason)
