"""Faults, carried out; and how long the readers that each of them concerned waited for their next token."""

import asyncio
import signal
import time
from collections.abc import Callable, Iterable
from typing import Final

from redis.exceptions import RedisError

from tests.chaos.plan import Fault
from tests.chaos.reader import Wanderer
from tests.chaos.scene import Actor, Scene
from tests.chaos.verdict import Felt

_IN_FLIGHT_S: Final = 0.1
"""What was on its way when the fault came does not show that anyone got over it."""

Shown = Callable[[Wanderer, float], bool]


class Strikes:
    """`readers` gives those that read at the moment."""

    def __init__(self, scene: Scene, readers: Callable[[], Iterable[Wanderer]]) -> None:
        self.felt = Felt()
        self._scene = scene
        self._readers = readers

    async def strike(self, fault: Fault) -> None:
        """Returns once it is over, but for what a supervisor then does."""
        self.felt.strokes[fault.kind] += 1
        who, how = fault.kind.split(" ", 1)
        if who == "worker":
            await self._worker(fault, self._scene.workers[fault.which], signal.Signals[how])
        elif who == "web":
            self._expect(fault, self._at(fault.which), _next_connection)
            self._end(self._scene.webs[fault.which], signal.Signals[how], fault.lasts_s)
        elif who == "Redis":
            await self._redis(fault)
        elif fault.kind == "sockets of readers":
            self._expect(fault, self._at(fault.which), _next_connection)
            self._scene.wires[fault.which].cut()
        elif fault.kind == "sockets of upstream":
            self._expect(fault, self._streaming(), _next_attempt)
            self._scene.upstream_wire.cut()
        else:
            await self._sockets_of_redis(fault)

    async def _worker(self, fault: Fault, worker: Actor, number: signal.Signals) -> None:
        struck = self._scene.worker_ids.get(worker.pid or 0)
        concerned = [reader for reader in self._readers() if reader.streams and reader.worker == struck]
        if number is signal.SIGSTOP:
            self._expect(fault, concerned, _later_than_in_flight)
            worker.signal(number)
            await asyncio.sleep(fault.lasts_s)
            worker.signal(signal.SIGCONT)
        else:
            self._expect(fault, concerned, _next_attempt)
            self._end(worker, number, fault.lasts_s)

    async def _redis(self, fault: Fault) -> None:
        up_at = float("inf")
        self._expect(fault, self._streaming(), lambda _reader, _at: lambda _, at: at > up_at)
        self._scene.redis_kills.append(time.monotonic())
        self._end(self._scene.redis, signal.SIGKILL, fault.lasts_s)
        await asyncio.sleep(fault.lasts_s)
        await self._scene.redis_is_up()
        up_at = time.monotonic()

    async def _sockets_of_redis(self, fault: Fault) -> None:
        self._expect(fault, self._streaming(), _later_than_in_flight)
        for kind in ("pubsub", "normal"):
            try:
                await self._scene.client.execute_command("CLIENT", "KILL", "TYPE", kind)  # type: ignore[no-untyped-call]
            except (RedisError, OSError):  # our own socket was among them, or Redis is away as it is
                continue

    def _end(self, actor: Actor, number: signal.Signals, pause_s: float) -> None:
        actor.pause_s = pause_s
        actor.signal(number)

    def _streaming(self) -> list[Wanderer]:
        return [reader for reader in self._readers() if reader.streams]

    def _at(self, web: int) -> list[Wanderer]:
        return [reader for reader in self._streaming() if reader.web == web]

    def _expect(self, fault: Fault, concerned: list[Wanderer], shown: Callable[[Wanderer, float], Shown]) -> None:
        """From now until a token shows that a reader got over it. A reader whose text ends before is not counted."""
        struck_at, waits = time.monotonic(), self.felt.waits[fault.kind]
        for reader in concerned:
            reader.waits.append((shown(reader, struck_at), lambda at: waits.append(at - struck_at)))


def _next_attempt(reader: Wanderer, _struck_at: float) -> Shown:
    before = reader.attempt
    return lambda reader, _: reader.attempt > before


def _next_connection(reader: Wanderer, _struck_at: float) -> Shown:
    before = reader.connections
    return lambda reader, _: reader.connections > before


def _later_than_in_flight(_reader: Wanderer, struck_at: float) -> Shown:
    return lambda _, at: at > struck_at + _IN_FLIGHT_S
