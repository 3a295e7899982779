"""Many readers in one process, which is not the bottleneck: in C where there is a compiler, else in Python, and said so."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, Literal, Self

import msgspec

from bench.compiler import compiled
from bench.stage import Child, Stage

IN_PYTHON: Final = "No C compiler here: the readers are a Python process, whose own limits show at 1,000 readers."
_CONNECT_S: Final = 60.0


class Seen(msgspec.Struct, frozen=True):
    """What all readers together saw; the fields are explained in load_client.c."""

    events: int
    wanted: int
    frames: int
    gaps: int
    span_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    connect_per_s: float
    done: int
    done_p50_ms: float
    done_p99_ms: float
    done_max_ms: float

    @property
    def delivered_percent(self) -> float:
        return round(100 * self.events / self.wanted, 2) if self.wanted else 100.0

    @property
    def events_per_s(self) -> float:
        """0 where all came at once."""
        return round(self.events / self.span_s) if self.span_s else 0


class Readers:
    """A crowd that is connected."""

    def __init__(self, client: Child, seconds: float) -> None:
        self._client = client
        self._seconds = seconds

    async def seen(self) -> Seen:
        """What they saw, once they have all of it or their time is over. They stay until the context is over."""
        return msgspec.json.decode(await self._client.line(self._seconds + 10), type=Seen)


class Crowd:
    """`note` says what is to be known about its figures; empty when nothing is."""

    def __init__(self, stage: Stage, command: tuple[str, ...], note: str) -> None:
        self._stage = stage
        self._command = command
        self.note = note

    @classmethod
    async def build(cls, stage: Stage) -> Self:
        """Raises BenchFailed: there is a compiler, and it could not compile."""
        program = await compiled(stage, Path(__file__).parent / "load_client.c")
        if program is None:
            return cls(stage, (sys.executable, "-m", "bench.load_client"), IN_PYTHON)
        return cls(stage, (program,), "")

    @asynccontextmanager
    async def open(
        self,
        port: int,
        paths: Sequence[str],
        readers: int,
        *,
        events: int = 0,
        seconds: float,
        count: Literal["stamped", "tokens"] = "stamped",
    ) -> AsyncIterator[Readers]:
        """Connects that many readers, spread over the paths; the context begins once all have an answer, and they leave at its
        end. `events` is how many each of them waits for, at most `seconds` from then on.

        Raises:
            BenchFailed: the server refused one, or was too slow to answer.
        """
        listing = self._stage.dir / "paths"
        listing.write_text("".join(f"{path}\n" for path in paths))
        arguments = (port, count, readers, events, seconds, listing)
        client = await self._stage.start("load client", *self._command, *map(str, arguments), may_end=True)
        try:
            assert await client.line(_CONNECT_S) == "connected", "the load client's first word"
            yield Readers(client, seconds)
        finally:
            await client.stop()
