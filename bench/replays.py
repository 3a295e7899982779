"""Scenario D: a reconnect storm. 500 readers at once ask for a finished job of 2,000 tokens from its first event."""

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Final, NamedTuple

from bench.crowd import Crowd
from bench.field import Field
from bench.figures import OURS, Finding, Row, Target, figure, times_peer
from bench.peers import Nchan, Ours, Server, Tutorial
from bench.stage import Child, Stage

BOTH: Final = "web + Redis ms/replay"
TOKENS: Final = 2000
TEXT: Final = " token"
"""Six characters: what a token of English text has, about."""
_READERS, _READERS_QUICK = 500, 100
_LATEST_S: Final = 20.0
"""Ours takes one of them. The tutorial takes a minute: it is charged with what it spent by then, which flatters it."""
_KINDS: Final = (Ours, Nchan, Tutorial)


class Scene(NamedTuple):
    stage: Stage
    redis: Child
    crowd: Crowd


async def run(stage: Stage) -> Finding:
    scene = Scene(stage, await stage.redis(), await Crowd.build(stage))
    field = Field(stage)
    await field.start(_KINDS)
    readers = _READERS_QUICK if stage.quick else _READERS
    case = f"{readers} replays at once"

    async def measure(server: Server) -> Row:
        stage.say(f"replays: {server.name}")
        return Row(case, server.name, await _storm(scene, server, readers))

    rows = await field.each(_KINDS, measure)
    return Finding(
        letter="D",
        title=f"Replay of a finished job of {TOKENS:,} tokens",
        rows=rows,
        compare=BOTH,
        targets=_targets(rows, case),
        notes=[
            "From a reader's request to its last token; all connect at once, so that most of it is waiting for the others.",
            *field.notes(),
            *([scene.crowd.note] if scene.crowd.note else []),
        ],
        unseen=["gaps"],
        absent=field.absent,
    )


def _targets(rows: Sequence[Row], case: str) -> list[Target]:
    return [
        *times_peer(rows, case, BOTH, Tutorial.name, 0.05, "CPU of all replays"),
        Target("gaps in the ids that readers saw", figure(rows, case, OURS, "gaps") or 0, 0, ""),
    ]


async def _storm(scene: Scene, server: Server, readers: int) -> dict[str, float]:
    web, redis = server.web, scene.redis
    async with AsyncExitStack() as writing:
        stream = await writing.enter_async_context(server.stream("replayed"))
        await stream.write_all([TEXT] * TOKENS)
        if isinstance(server, Ours):
            await writing.aclose()  # it ends as jobs do; the others' readers are never told of an end
        async with scene.crowd.open(server.port, [stream.path], 1, events=TOKENS, seconds=_LATEST_S, count="tokens") as first:
            await first.seen()  # what the very first reader makes a process load is no replay's
        await web.idle()
        cpu_s, redis_cpu_s = web.cpu_s, redis.cpu_s
        async with scene.crowd.open(
            server.port, [stream.path], readers, events=TOKENS, seconds=_LATEST_S, count="tokens"
        ) as crowd:
            seen = await crowd.seen()
            web_s, redis_s = web.cpu_s - cpu_s, redis.cpu_s - redis_cpu_s
    return {
        BOTH: round((web_s + redis_s) / readers * 1000, 3),
        "web ms/replay": round(web_s / readers * 1000, 3),
        "Redis ms/replay": round(redis_s / readers * 1000, 3),
        "p50 ms": seen.done_p50_ms,
        "p99 ms": seen.done_p99_ms,
        "frames/reader": round(seen.frames / readers, 1),
        "delivered %": seen.delivered_percent,
        "gaps": seen.gaps,
    }
