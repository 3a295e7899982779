"""Who may write to a job's log: the lease, the attempt that was claimed with it, and what that reads upstream. No I/O."""

from typing import Literal, NamedTuple

import msgspec

from shared.events import StartReason
from shared.ids import EventId
from shared.job import Solitude


class Lease(msgspec.Struct, frozen=True):
    """The right to run a job for a while: `token` is what the in-progress key and, once claimed, the record's owner hold."""

    job_id: str
    token: str


class Opening(msgspec.Struct, frozen=True):
    """What a claim wrote, so that it can be written again: the same `N-0`, after the same entry."""

    after: EventId
    worker: str
    reset: bool
    rest: bytes
    """The event's JSON after `reset`."""
    private: bytes
    solitude: Solitude | Literal["", "="] = "="
    """`=`: as it was before."""
    beside: str = ""


class Ownership(msgspec.Struct, frozen=True):
    """A claimed attempt: the right to append to the log and to end it, until someone else claims."""

    lease: Lease
    attempt: int
    reason: StartReason
    opening: Opening

    @property
    def job_id(self) -> str:
        return self.lease.job_id


class KeptUpstream(NamedTuple):
    """A response that goes on at a provider's by itself: whose, and its id there. As the record and a lane's list hold it."""

    model: str
    id: str

    @property
    def provider(self) -> str:
        return self.model.partition("/")[0]

    def __str__(self) -> str:
        return f"{self.model} {self.id}"

    @classmethod
    def parse(cls, raw: bytes) -> "KeptUpstream":
        return cls(*raw.decode().split(" ", 1))
