"""The jobs that run in one worker, and those that must run there alone. No I/O.

    enter ──suspect──▶ waits ──nobody else runs──▶ alone ──past where it was lost──▶ runs ──▶ leave
          ──else─────▶ runs, unless one is alone here: then it is not for this worker now

A job that lost several workers is suspected of killing them (docs/decisions/0027). While one is alone here, or waits to be, the
worker takes no other job; those that run already are waited for. Suspects take their turns in the order in which they came.
"""

import asyncio
from collections.abc import Callable

from shared.job import Solitude


class Place:
    """One job's place among those of its worker; whoever entered leaves it, whatever happens."""

    def __init__(self, company: "Company", job_id: str, alone_until: int | None) -> None:
        self.job_id = job_id
        self.turn = asyncio.Event()
        """Set once the job may run."""
        self.beside: str | None = None
        """The job that ran alone here until this one came to run beside it."""
        self.told: Solitude | None = None
        """What the record says of `solitude`."""
        self._company = company
        self._alone_until = alone_until

    @property
    def solitude(self) -> Solitude | None:
        """As it stands now; the record has to say so before the job runs."""
        if not self.turn.is_set():
            return "waits"
        return "alone" if self._company.runs_alone(self) else None

    @property
    def suspect(self) -> bool:
        """Whether nothing may run beside it."""
        return self._alone_until is not None

    def made(self, kept_tokens: int) -> None:
        """The job has so many tokens now; past where it was lost it is like any other."""
        if self._alone_until is not None and kept_tokens > self._alone_until:
            self._alone_until = None
            self._company.settle()

    def leave(self) -> None:
        self._company.remove(self)


class Company:
    def __init__(self) -> None:
        self._running: list[Place] = []
        self._waiting: list[Place] = []
        self._wanted_before = False
        self._on_free: Callable[[], None] | None = None

    @property
    def wanted(self) -> bool:
        """A job is alone here, or waits to be: no other is to be taken."""
        return bool(self._waiting) or self._closed

    def call_when_free(self, call: Callable[[], None]) -> None:
        """What is told as soon as nobody wants to be alone here any more."""
        self._on_free = call

    def enter(self, job_id: str, alone_until: int | None = None) -> Place | None:
        """A place for a job about to be claimed; None where it would disturb one that runs alone.

        `alone_until`: for a suspect, the tokens it must have more of before anything runs beside it.
        """
        if alone_until is None and self._closed:
            return None
        place = Place(self, job_id, alone_until)
        if alone_until is None:
            self._run(place)
        else:
            self._waiting.append(place)
        self.settle()
        return place

    def remove(self, place: Place) -> None:
        (self._running if place.turn.is_set() else self._waiting).remove(place)
        self.settle()

    def runs_alone(self, place: Place) -> bool:
        return self._running == [place]

    def settle(self) -> None:
        """Something changed: the next suspect's turn may have come, or that of all others."""
        if self._waiting and not self._running:
            self._run(self._waiting.pop(0))
        was_wanted, self._wanted_before = self._wanted_before, self.wanted
        if was_wanted and not self.wanted and self._on_free is not None:
            self._on_free()

    @property
    def _closed(self) -> bool:
        return any(place.suspect for place in self._running)

    def _run(self, place: Place) -> None:
        if len(self._running) == 1:
            place.beside = self._running[0].job_id
        self._running.append(place)
        place.turn.set()
