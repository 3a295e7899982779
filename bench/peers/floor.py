"""The floor, no peer but the physical limit: a loop in C that writes each event to each socket, and does nothing else."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from bench.compiler import compiled
from bench.peers.base import PeerMissing, Server, Stream
from bench.peers.http_publisher import HttpPublisher
from shared.events import Token, to_data


class FloorStream(Stream):
    def __init__(self, path: str, publisher: HttpPublisher) -> None:
        super().__init__(path)
        self._publisher = publisher

    async def write(self, text: str) -> None:
        await self._publisher.post(self.path, to_data(Token(text)))


class Floor(Server):
    name = "floor: epoll in C"
    likely_crowd = 3000

    async def start(self) -> None:
        program = await compiled(self.stage, Path(__file__).parent / "floor_server.c")
        if program is None:
            raise PeerMissing("The floor is not here: there is no C compiler to build it with")
        self.web = await self.stage.start("floor", program, may_end=True)
        self.port = int(await self.web.line())

    def path_of(self, name: str) -> str:
        return f"/{name}"

    @asynccontextmanager
    async def stream(self, name: str) -> AsyncIterator[Stream]:
        async with HttpPublisher(self.port) as publisher:
            yield FloorStream(self.path_of(name), publisher)

    def note(self) -> str:
        return "The floor has no log, no ids, no streams and no back-pressure: what it takes is the kernel's."
