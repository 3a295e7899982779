"""All that happens in a chaos run, drawn from its seed before anything starts. No I/O.

The seed alone decides: a longer run begins as the shorter one, and a failing seed meets the same faults, jobs and readers at
the same moments again.
"""

import random
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple, TypeVar, get_args

Kind = Literal[
    "worker SIGKILL", "worker SIGTERM", "worker SIGSTOP", "web SIGKILL", "web SIGTERM", "Redis SIGKILL", "sockets of readers",
    "sockets of Redis", "sockets of upstream",
]  # fmt: skip
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

WORKERS: Final = 3
WEBS: Final = 2

_DECK: Final[tuple[Kind, ...]] = (
    *KINDS,
    "worker SIGKILL",
    "worker SIGTERM",
    "worker SIGSTOP",
    "Redis SIGKILL",
    "sockets of readers",
)
"""Dealt to its end and shuffled anew, so that no kind is missing from a short run."""


class Fault(NamedTuple):
    """`which` of its kind is struck; `lasts_s`: until it runs again, where nothing else decides."""

    at_s: float
    kind: Kind
    which: int
    lasts_s: float


class ReaderPlan(NamedTuple):
    """Comes in at `web`, cuts its own connection after so many frames each time, and goes on at the other web."""

    web: int
    cuts: tuple[int, ...]
    merge: bool


class JobPlan(NamedTuple):
    """An answer of so many words at a rate (0: as fast as they go out)."""

    at_s: float
    words: int
    per_second: int
    readers: tuple[ReaderPlan, ...]

    @property
    def model(self) -> str:
        return f"openai/count:{self.words}:{self.per_second}"


class Plan(NamedTuple):
    """Seconds count from the start."""

    seed: int
    seconds: float
    lease_s: float
    jobs: tuple[JobPlan, ...]
    faults: tuple[Fault, ...]


def make_plan(seed: int, seconds: float, *, lease_s: float, every_s: float) -> Plan:
    """`every_s`: from one fault to the next, on average."""
    jobs = _until(seconds, _jobs(random.Random(f"{seed} jobs")))
    faults = _until(seconds, _faults(random.Random(f"{seed} faults"), lease_s, every_s))
    return Plan(seed, seconds, lease_s, jobs, faults)


_Timed = TypeVar("_Timed", JobPlan, Fault)


def _until(seconds: float, endless: Iterator[_Timed]) -> tuple[_Timed, ...]:
    found = []
    for one in endless:
        if one.at_s > seconds:
            break
        found.append(one)
    return tuple(found)


def _jobs(chance: random.Random) -> Iterator[JobPlan]:
    at_s = 0.0
    while True:
        at_s += chance.uniform(0.2, 0.8)
        yield JobPlan(
            at_s=at_s,
            words=chance.randint(5, 150),
            per_second=chance.choice((0, 20, 20, 50)),
            readers=(_reader(chance, most_cuts=0), _reader(chance, most_cuts=4)),
        )


def _reader(chance: random.Random, most_cuts: int) -> ReaderPlan:
    cuts = tuple(chance.randint(1, 40) for _ in range(chance.randint(0, most_cuts)))
    return ReaderPlan(web=chance.randrange(WEBS), cuts=cuts, merge=chance.random() < 0.8)


def _faults(chance: random.Random, lease_s: float, every_s: float) -> Iterator[Fault]:
    at_s, deck = 1.0, list[Kind]()
    while True:
        if not deck:
            deck = list(_DECK)
            chance.shuffle(deck)
        kind = deck.pop()
        at_s += chance.uniform(0.4, 1.6) * every_s
        yield Fault(
            at_s, kind, chance.randrange(WORKERS if kind.startswith("worker") else WEBS), _lasts_s(chance, kind, lease_s)
        )


def _lasts_s(chance: random.Random, kind: Kind, lease_s: float) -> float:
    """Outages and sleeps on both sides of a lease; whoever was killed is started again as soon as a supervisor would."""
    longest = {"worker SIGSTOP": 1.8 * lease_s, "Redis SIGKILL": 1.3 * lease_s}.get(kind, 1.0)
    return chance.uniform(0.05, longest)
