"""Lastevent's own web process, as `lastevent web` runs it. Streams are jobs, written through the worker's own writer."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from bench.figures import OURS
from bench.owned_log import owned_log
from bench.peers.base import Server, Stream
from shared.events import Token
from worker.log_handle import LogHandle

QUIET: Final = {"log_level": "info", "log_json": "1"}


class OurStream(Stream):
    def __init__(self, path: str, out: LogHandle) -> None:
        super().__init__(path)
        self._out = out

    async def write(self, text: str) -> None:
        await self._out.append(Token(text))


class Ours(Server):
    name = OURS
    likely_crowd = 3000

    async def start(self) -> None:
        environment = self.stage.environment(**QUIET)
        self.web = await self.stage.python("cli.main", "web", "--port", "0", may_end=True, **environment)
        self.port = int(json.loads(await self.web.logged("web is listening"))["port"])

    def path_of(self, name: str) -> str:
        return f"/v1/jobs/{name}/events"

    @asynccontextmanager
    async def stream(self, name: str) -> AsyncIterator[Stream]:
        """A job, which has a name of its own; it is done, and its whole log stays, once the context is over."""
        async with owned_log(self.stage.settings()) as out:
            yield OurStream(self.path_of(out.owner.job_id), out)
