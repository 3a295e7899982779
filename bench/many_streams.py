"""Scenario B: many streams, one reader each, 20 tokens/s a stream. What an event costs web and Redis, and how late it comes.

Here readers share nothing: what counts is how a web process learns of new entries. The tokens come from one cheap process that
writes many streams in one round trip (`stream_source.py`): ours by the worker's append command, the peers' by `XADD`.
"""

import json
import os
import signal
from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.crowd import Crowd, Seen
from bench.field import Field
from bench.figures import OURS, Finding, Row, Target, figure, times_peer
from bench.peers import Ours, Server, Tutorial
from bench.stage import Child, Stage
from bench.stream_source import OVERTIME_S, WARM_UP_S

BOTH, P99 = "web + Redis µs/event", "p99 ms"
_PER_S: Final = 20
_LAG_S: Final = 2.0
_OPEN_S: Final = 60.0
"""How long the source may take to have its streams, on a machine that is busy: each is a job that is submitted and claimed."""
_CLAIMED: Final = "1,000 streams"


class Load(NamedTuple):
    streams: int
    seconds: float

    @property
    def case(self) -> str:
        return f"{self.streams:,} streams"


_LOADS: Final = (Load(200, 4), Load(1000, 4), Load(2000, 4))
_LOADS_QUICK: Final = (Load(200, 3),)


class Scene(NamedTuple):
    stage: Stage
    redis: Child
    crowd: Crowd


async def run(stage: Stage) -> Finding:
    scene = Scene(stage, await stage.redis(), await Crowd.build(stage))
    field = Field(stage)
    await field.start((Ours, Tutorial))
    rows: list[Row] = []
    for load in _LOADS_QUICK if stage.quick else _LOADS:

        async def measure(server: Server, load: Load = load) -> Row:
            stage.say(f"many streams: {load.case}, {server.name}")
            return await _measure(scene, server, load)

        rows += await field.each((Ours, Tutorial), measure)
    return Finding(
        letter="B",
        title="Many streams, one reader each, 20 tokens/s a stream",
        rows=rows,
        compare=BOTH,
        targets=_targets(rows),
        notes=[
            "Redis' part has the writing in it: the append script of ours, with owner checks and a push; an XADD of theirs.",
            "Times run from when the source sends a round trip's tokens; a worker's writer may gather for 5 ms before.",
            *([scene.crowd.note] if scene.crowd.note else []),
        ],
        unseen=["gaps", "delivered/s"],
        absent=field.absent,
    )


def _targets(rows: Sequence[Row]) -> list[Target]:
    gaps = [gaps for row in rows if (gaps := figure([row], row.case, OURS, "gaps")) is not None]
    return [
        *times_peer(rows, _CLAIMED, BOTH, Tutorial.name, 0.6, "web + Redis CPU per event at 1,000 streams"),
        *times_peer(rows, _CLAIMED, P99, Tutorial.name, 0.0333, "p99 delivery at 1,000 streams"),
        Target("gaps in the ids that readers saw", sum(gaps), 0, ""),
    ]


async def _measure(scene: Scene, server: Server, load: Load) -> Row:
    web, redis = server.web, scene.redis
    await web.idle()
    way = "ours" if isinstance(server, Ours) else "plain"
    arguments = (way, str(load.streams), str(_PER_S), str(load.seconds))
    source = await scene.stage.python("bench.stream_source", *arguments, may_end=True, **scene.stage.environment())
    try:
        paths = [server.path_of(name) for name in json.loads(await source.line(_OPEN_S))]
        events, lasts_s = round(load.seconds * _PER_S), WARM_UP_S + load.seconds + 2 * OVERTIME_S + _LAG_S
        async with scene.crowd.open(server.port, paths, load.streams, events=events, seconds=lasts_s) as readers:
            os.kill(source.pid, signal.SIGUSR1)
            await source.line()  # "begins"
            cpu_s, redis_cpu_s = web.cpu_s, redis.cpu_s
            seen = await readers.seen()
            cost = web.cpu_s - cpu_s, redis.cpu_s - redis_cpu_s
        said = json.loads(await source.line(lasts_s))
    finally:
        await source.stop()
    return Row(load.case, server.name, _figures(seen, *cost, said=said))


def _figures(seen: Seen, cpu_s: float, redis_cpu_s: float, *, said: dict[str, float]) -> dict[str, float]:
    """`said` is the source's last word: what it wrote, and how late."""
    web, redis = (seconds / max(1, seen.events) * 1e6 for seconds in (cpu_s, redis_cpu_s))
    return {
        BOTH: round(web + redis, 2),
        "web µs/event": round(web, 2),
        "Redis µs/event": round(redis, 2),
        "p50 ms": seen.p50_ms,
        P99: seen.p99_ms,
        "delivered %": round(100 * seen.events / max(1, said["tokens"]), 2),
        "delivered/s": seen.events_per_s,
        "source late ms": said["latest_ms"],
        "gaps": seen.gaps,
    }
