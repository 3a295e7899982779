"""A primary, a replica that can be made to fall behind, and a Sentinel that fails over: real redis-servers, each a process."""

import asyncio
import contextlib
import shutil
import tempfile
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from cli.embedded_redis import find_redis_server
from tests.support.redis_server import RedisServer, free_port
from tests.support.waiting import wait_until

NAME: Final = "lastevent-primary"

_CONFIG: Final = """
port {port}
bind 127.0.0.1
dir {folder}
logfile {folder}/sentinel.log
sentinel monitor {name} 127.0.0.1 {primary} 1
sentinel down-after-milliseconds {name} 500
sentinel failover-timeout {name} 5000
"""


class Failover(NamedTuple):
    primary: RedisServer
    replica: RedisServer
    sentinel_port: int

    @property
    def url(self) -> str:
        """The first of the two Sentinels it names is not there."""
        return f"sentinel://127.0.0.1:{free_port()},127.0.0.1:{self.sentinel_port}/{NAME}/0"

    async def cut_the_replica_off(self) -> None:
        """From here on the primary's writes reach nobody: the replica has another password than there is."""
        await _ask(self.replica, "CONFIG", "SET", "masterauth", "wrong")
        await _ask(self.primary, "CLIENT", "KILL", "TYPE", "REPLICA")
        await wait_until(self._is_cut_off, message="the replica's link is down")

    async def until_failed_over(self) -> None:
        """Returns once the Sentinel names the replica as the primary."""
        await wait_until(self._is_promoted, timeout=20, message="the Sentinel promotes the replica")

    async def _is_cut_off(self) -> bool:
        return (await self._replication())["master_link_status"] == "down"

    async def is_synced(self) -> bool:
        return (await self._replication())["master_link_status"] == "up"

    async def _is_promoted(self) -> bool:
        client = Redis(port=self.sentinel_port)
        try:
            _, port = await client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME)  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()
        return int(port) == self.replica.port

    async def _replication(self) -> dict[str, str]:
        info: dict[str, str] = await _ask(self.replica, "INFO", "replication")
        return info


@asynccontextmanager
async def failover() -> AsyncIterator[Failover]:
    folder = Path(tempfile.mkdtemp(prefix="lastevent-sentinel-"))
    primary = RedisServer(append_only=True, repl_diskless_sync_delay="0")
    replica = RedisServer(append_only=True)
    servers = Failover(primary, replica, free_port())
    sentinel: asyncio.subprocess.Process | None = None
    try:
        for server in (primary, replica):
            await asyncio.to_thread(server.start)
        await _ask(replica, "REPLICAOF", "127.0.0.1", str(primary.port))
        await wait_until(servers.is_synced, message="the replica follows")
        config = folder / "sentinel.conf"
        config.write_text(_CONFIG.format(port=servers.sentinel_port, folder=folder, name=NAME, primary=primary.port))
        sentinel = await asyncio.create_subprocess_exec(find_redis_server().path, str(config), "--sentinel", stdout=DEVNULL)
        await wait_until(lambda: _knows_the_replica(servers.sentinel_port), message="the Sentinel knows the replica")
        yield servers
    finally:
        if sentinel is not None:
            sentinel.kill()
            await sentinel.wait()
        for server in (primary, replica):
            await asyncio.to_thread(server.close)
        shutil.rmtree(folder, ignore_errors=True)


async def _knows_the_replica(port: int) -> bool:
    client = Redis(port=port)
    with contextlib.suppress(RedisConnectionError):
        try:
            return bool(await client.execute_command("SENTINEL", "REPLICAS", NAME))  # type: ignore[no-untyped-call]
        finally:
            await client.aclose()
    return False


async def _ask(server: RedisServer, *words: str) -> Any:
    client = Redis(port=server.port)
    try:
        return await client.execute_command(*words)  # type: ignore[no-untyped-call]
    finally:
        await client.aclose()
