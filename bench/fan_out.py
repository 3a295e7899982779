"""Scenario A: one stream, many readers. What one delivered event costs the server, how late it comes, how many it can serve.

Ours beside its peers on one Redis, one after the other under load, all at once where they are quiet. The events are written by
this process, each with the time in its text; the readers are one process in C.
"""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Final, NamedTuple

from bench.beat import on_beat
from bench.crowd import Crowd, Seen
from bench.field import Field
from bench.figures import OURS, Finding, Row, Target, figure, times_peer
from bench.largest import largest
from bench.peers import ALL, Floor, Nchan, Ours, Server, Tutorial
from bench.stage import BenchFailed, Child, Stage

CPU, P99, RSS = "CPU µs/event", "p99 ms", "RSS KB/reader"
UNSEEN: Final = ["gaps", "connects/s"]
QUIET_CPU, LARGEST = "CPU %", "readers"
QUIET_CASE, LARGEST_CASE = "2,000 quiet readers", "largest crowd, p99 < 100 ms"
_PER_S: Final = 50.0
_WARM_UP_S: Final = 0.5
_LAG_S: Final = 2.0
"""How long after the last event the readers go on listening."""
_QUIET_READERS, _QUIET_READERS_QUICK = 2000, 500
_QUIET_S, _QUIET_QUICK_S = 15.0, 4.0
"""As long as a heartbeat's time, so that each reader gets one."""
_QUIET_LATEST_S: Final = 120.0
_TRIAL_WARM_UP_S, _TRIAL_S, _TRIALS, _TRIALS_FULL = 0.5, 2.0, 4, 9
_GOOD_MS: Final = 100.0


class Load(NamedTuple):
    """So many readers of one stream at 50 events/s, for so long."""

    readers: int
    seconds: float

    @property
    def case(self) -> str:
        return f"{self.readers:,} readers"


_LOADS: Final = (Load(1, 1), Load(100, 4), Load(1000, 4), Load(5000, 3))
_LOADS_QUICK: Final = (Load(100, 3),)
_SATURATING: Final = 5000
"""From here on only the fast ones are asked, unless `--full`: the others take minutes to say that they cannot."""

_NOTES: Final = [
    "CPU µs/event is the same number as CPU-milliseconds per 1,000 delivered events.",
    "A server that lags takes many events at once: where p99 is long, its CPU an event is less than it were without.",
]


class Scene(NamedTuple):
    stage: Stage
    redis: Child
    crowd: Crowd
    field: Field


async def run(stage: Stage) -> Finding:
    redis = await stage.redis()
    scene = Scene(stage, redis, await Crowd.build(stage), Field(stage))
    await scene.field.start(ALL)
    quiet = await _quiet(scene)
    rows: list[Row] = []
    for load in _LOADS_QUICK if stage.quick else _LOADS:
        rows += await _under(scene, load)
    crowds = [] if stage.quick else await _largest_crowds(scene)
    return Finding(
        letter="A",
        title="Fan-out: one stream at 50 events/s",
        rows=[*rows, *crowds, *quiet],
        compare=CPU,
        targets=_targets(rows, crowds, quiet),
        notes=[*_NOTES, *scene.field.notes(), *([scene.crowd.note] if scene.crowd.note else [])],
        unseen=UNSEEN,
        absent=scene.field.absent,
    )


def _targets(rows: Sequence[Row], crowds: Sequence[Row], quiet: Sequence[Row]) -> list[Target]:
    targets = [
        *times_peer(rows, "1,000 readers", CPU, Nchan.name, 1.2, "CPU per delivered event at 1,000 readers"),
        *times_peer(rows, "100 readers", CPU, Tutorial.name, 0.1, "CPU per delivered event at 100 readers"),
        *times_peer(rows, "1,000 readers", P99, Nchan.name, 1.5, "p99 delivery at 1,000 readers"),
        *times_peer(crowds, LARGEST_CASE, LARGEST, Nchan.name, 2, "largest crowd with p99 < 100 ms", at_least=True),
        *times_peer(rows, "5,000 readers", "delivered/s", Nchan.name, 2, "deliveries/s to 5,000 readers", at_least=True),
    ]
    ours = next((row.figures for row in quiet if row.server == OURS), None)
    if ours is not None:
        targets.append(Target("RSS per connection", ours[RSS], 12, "KB"))
        targets.append(Target("CPU of the quiet ones", ours[QUIET_CPU], 0.5, "%"))
    gaps = [gaps for row in rows if (gaps := figure([row], row.case, OURS, "gaps")) is not None]
    return [*targets, Target("gaps in the ids that readers saw", sum(gaps), 0, "")]


async def _under(scene: Scene, load: Load) -> list[Row]:
    kinds = ALL if load.readers < _SATURATING or scene.stage.full else (Ours, Floor, Nchan)

    async def measure(server: Server) -> Row:
        scene.stage.say(f"fan-out: {load.case}, {server.name}")
        return await _measure(scene, server, load)

    return await scene.field.each(kinds, measure)


async def _measure(scene: Scene, server: Server, load: Load) -> Row:
    web, redis = server.web, scene.redis
    await web.idle()
    events, lasts_s = round(load.seconds * _PER_S), _WARM_UP_S + load.seconds + _LAG_S
    async with (
        server.stream(f"at{load.readers}") as stream,
        scene.crowd.open(server.port, [stream.path], load.readers, events=events, seconds=lasts_s) as readers,
    ):
        await on_beat(stream.write, _WARM_UP_S, _PER_S, counts=False)
        cpu_s, redis_cpu_s = web.cpu_s, redis.cpu_s
        await on_beat(stream.write, load.seconds, _PER_S)
        seen = await readers.seen()
        cost = web.cpu_s - cpu_s, redis.cpu_s - redis_cpu_s
    return Row(load.case, server.name, _figures(seen, *cost))


def _figures(seen: Seen, cpu_s: float, redis_cpu_s: float) -> dict[str, float]:
    delivered = max(1, seen.events)
    return {
        CPU: round(cpu_s / delivered * 1e6, 2),
        "Redis µs/event": round(redis_cpu_s / delivered * 1e6, 2),
        "p50 ms": seen.p50_ms,
        P99: seen.p99_ms,
        "delivered %": seen.delivered_percent,
        "delivered/s": seen.events_per_s,
        "connects/s": round(seen.connect_per_s),
        "gaps": seen.gaps,
    }


# --- the largest crowd ----------------------------------------------------------------------------------------------------


async def _largest_crowds(scene: Scene) -> list[Row]:
    trials = _TRIALS_FULL if scene.stage.full else _TRIALS

    async def measure(server: Server) -> Row:
        most = await largest(lambda readers: _is_well_served(scene, server, readers), server.likely_crowd, trials)
        return Row(LARGEST_CASE, server.name, {LARGEST: most})

    return await scene.field.each(ALL if scene.stage.full else (Ours, Nchan), measure)


async def _is_well_served(scene: Scene, server: Server, readers: int) -> bool:
    """Whether a crowd of this size gets all events, 99 % of them within 100 ms."""
    scene.stage.say(f"largest crowd: {server.name}, {readers:,} readers")
    await server.web.idle()
    events, lasts_s = round(_TRIAL_S * _PER_S), _TRIAL_WARM_UP_S + _TRIAL_S + 1
    try:
        async with (
            server.stream(f"crowd{readers}") as stream,
            scene.crowd.open(server.port, [stream.path], readers, events=events, seconds=lasts_s) as crowd,
        ):
            await on_beat(stream.write, _TRIAL_WARM_UP_S, _PER_S, counts=False)
            await on_beat(stream.write, _TRIAL_S, _PER_S)
            seen = await crowd.seen()
    except BenchFailed:
        if not server.web.lives:
            raise
        return False  # it turned some of them away, or could not answer them in time
    return seen.events >= seen.wanted and seen.p99_ms < _GOOD_MS


# --- quiet readers --------------------------------------------------------------------------------------------------------


async def _quiet(scene: Scene) -> list[Row]:
    """All servers at once: what they cost while nothing is sent, the first thing after their start."""
    stage = scene.stage
    readers, seconds = (_QUIET_READERS_QUICK, _QUIET_QUICK_S) if stage.quick else (_QUIET_READERS, _QUIET_S)
    case = f"{readers:,} quiet readers"
    async with contextlib.AsyncExitStack() as open_streams:

        async def connect(server: Server) -> Row:
            stage.say(f"quiet readers: {server.name}")
            path = (await open_streams.enter_async_context(server.stream("quiet"))).path
            async with scene.crowd.open(server.port, [path], 20, seconds=seconds):
                pass  # what the very first readers make a process load is no reader's
            await server.web.idle()
            rss = server.web.rss_bytes
            await open_streams.enter_async_context(scene.crowd.open(server.port, [path], readers, seconds=_QUIET_LATEST_S))
            await server.web.idle()
            return Row(case, server.name, {RSS: round((server.web.rss_bytes - rss) / readers / 1024, 1)})

        connected = {row.server: row for row in await scene.field.each(ALL, connect)}
        before = {server.name: server.web.cpu_s for server in scene.field.of(ALL)}
        stage.say(f"quiet readers: {seconds:g} s of silence")
        await asyncio.sleep(seconds)

        async def silence(server: Server) -> Row:
            percent = 100 * (server.web.cpu_s - before[server.name]) / seconds
            return Row(case, server.name, {**connected[server.name].figures, QUIET_CPU: round(percent, 2)})

        return await scene.field.each(ALL, silence)
