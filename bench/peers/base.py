"""What a scenario asks of a server: start, lend streams that can be written to, and be a process whose cost is counted."""

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import ClassVar

from bench.stage import Child, Stage


class PeerMissing(Exception):
    """What a peer needs is not on this machine: the message says what, and how to get it."""


class Stream(ABC):
    """One stream that readers follow at `path`."""

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    async def write(self, text: str) -> None:
        """Writes one token event."""

    async def write_all(self, texts: list[str]) -> None:
        """Writes many, as fast as they are taken."""
        for text in texts:
            await self.write(text)


class Server(ABC):
    """One way to serve event streams. `likely_crowd` is where the search for its largest crowd begins."""

    name: ClassVar[str]
    likely_crowd: ClassVar[int]

    web: Child
    """The process that has the readers: its cost is what is compared."""
    port: int

    def __init__(self, stage: Stage) -> None:
        self.stage = stage

    @abstractmethod
    async def start(self) -> None:
        """Raises PeerMissing, BenchFailed."""

    @abstractmethod
    def path_of(self, name: str) -> str:
        """Where readers find the stream of that name."""

    @abstractmethod
    def stream(self, name: str) -> AbstractAsyncContextManager[Stream]:
        """A new stream; whether readers may still come to it when the context is over differs from server to server."""

    def note(self) -> str:
        """What is to be known about its figures; empty when nothing is."""
        return ""
