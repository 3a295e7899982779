"""The servers of one scenario, side by side. A peer that is missing or fails is said and left out; ours must not."""

from collections.abc import Awaitable, Callable, Sequence

from redis.exceptions import RedisError

from bench.figures import Row
from bench.peers import Ours, PeerMissing, Server
from bench.stage import BenchFailed, Stage

Measure = Callable[[Server], Awaitable[Row]]


class Field:
    """`absent` says which peers are not in it any more, and why."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._servers: list[Server] = []
        self.absent: list[str] = []

    async def start(self, kinds: Sequence[type[Server]]) -> None:
        """Raises BenchFailed: ours does not start."""
        for kind in kinds:
            server = kind(self._stage)
            self._stage.say(f"starting: {kind.name}")
            try:
                await server.start()
            except PeerMissing as missing:
                self.absent.append(str(missing))
            except BenchFailed as failed:
                self._drop(server, failed)
            else:
                self._servers.append(server)

    def of(self, kinds: Sequence[type[Server]]) -> list[Server]:
        """Those of these kinds that are still in it."""
        return [server for server in self._servers if isinstance(server, tuple(kinds))]

    def notes(self) -> list[str]:
        return [note for server in self._servers if (note := server.note())]

    async def each(self, kinds: Sequence[type[Server]], measure: Measure) -> list[Row]:
        """One row of each of these, one after the other. Raises BenchFailed: ours failed."""
        rows = []
        for server in self.of(kinds):
            try:
                rows.append(await measure(server))
            except (BenchFailed, RedisError, OSError) as failed:  # OSError: /proc knows it no more, or it takes no connection
                self._drop(server, failed)
        return rows

    def _drop(self, server: Server, failed: Exception) -> None:
        if isinstance(server, Ours):
            raise BenchFailed(f"{server.name}: {failed}") from failed
        self.absent.append(f"{server.name} failed, and is left out from then on: {failed}")
        if server in self._servers:
            self._servers.remove(server)
