"""resumable-stream (npm), on Node and the same Redis: a process that makes the streams, and one that resumes them for readers.

Installed by npm beside its server, into a folder that git ignores, when the bench first asks for it.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from bench.peers.base import PeerMissing, Server, Stream
from bench.peers.http_publisher import HttpPublisher
from bench.stage import Child
from shared.events import Token, to_data

FOLDER: Final = Path(__file__).parent / "resumable"
_INSTALL_S: Final = 120.0


class ResumedStream(Stream):
    def __init__(self, path: str, source: HttpPublisher) -> None:
        super().__init__(path)
        self._source = source

    async def write(self, text: str) -> None:
        await self._source.post(self.path, b"data: %s\n\n" % to_data(Token(text)))


class ResumableStream(Server):
    name = "resumable-stream"
    likely_crowd = 800

    async def start(self) -> None:
        node = await _installed()
        redis_socket = unquote(self.stage.redis_url.removeprefix("unix://"))
        self.web = await self._node(node, "web", redis_socket)
        self.port = int(await self.web.line())
        source = await self._node(node, "source", redis_socket)
        self._source_port = int(await source.line())

    async def _node(self, node: str, role: str, redis_socket: str) -> Child:
        return await self.stage.start(f"node {role}", node, str(FOLDER / "server.cjs"), role, redis_socket, may_end=True)

    def path_of(self, name: str) -> str:
        return f"/{name}"

    @asynccontextmanager
    async def stream(self, name: str) -> AsyncIterator[Stream]:
        async with HttpPublisher(self._source_port) as source:
            await source.post(self.path_of(name), b"")
            yield ResumedStream(self.path_of(name), source)

    def note(self) -> str:
        return "resumable-stream: its source publishes each event once a reader, in a process that is not counted here."


async def _installed() -> str:
    """The node to run it with. Raises PeerMissing: no Node, no npm, or nothing to install from."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None:
        raise PeerMissing("resumable-stream needs Node: apt-get install nodejs npm")
    if (FOLDER / "node_modules" / "resumable-stream").is_dir():
        return node
    if npm is None:
        raise PeerMissing("resumable-stream is not installed, and there is no npm: apt-get install npm")
    command = (npm, "install", "--no-package-lock", "--no-audit", "--no-fund", "--silent")
    process = await asyncio.create_subprocess_exec(*command, cwd=FOLDER, stderr=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(_INSTALL_S):
            _, said = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        raise PeerMissing(f"npm did not install resumable-stream within {_INSTALL_S:g} s") from None
    if process.returncode != 0:
        raise PeerMissing(f"npm could not install resumable-stream: {said.decode(errors='replace').strip()[-300:]}")
    return node
