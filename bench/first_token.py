"""Scenario C2: from the request to the first token over HTTP, through the whole stack, and without it.

The provider answers at once, so that what is left is the way: web, Redis, worker, provider's SDK, Redis, web. The queue's
share is what a reader waits longer than one that calls the provider itself, through its SDK. A web process, a worker, a Redis
and the provider run beside this client: with fewer cores than that, part of the share is theirs.
"""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, NamedTuple

import openai

from bench import sdk_caller
from bench.figures import OURS, Finding, Row, Target, spread
from bench.http_calls import Calls
from bench.stage import Child, Stage
from cli.bench_runs import percentile

SDK, BARE = "provider, through the openai SDK", "provider, through a bare socket"
MODEL: Final = "instant"
_IDLE_ROUNDS, _IDLE_QUICK, _WARM_UP = 100, 40, 20
_LOADED_S, _LOADED_QUICK_S, _JOBS_PER_S = 20.0, 4.0, 20.0
_PROMPT: Final = [{"role": "user", "content": "Hello"}]

Call = Callable[[], Awaitable[float]]


class Ways(NamedTuple):
    """The ways to the provider that this process can go, and the provider's address for those that go from another one."""

    calls: dict[str, Call]
    base_url: str


async def run(stage: Stage) -> Finding:
    await stage.redis()
    async with _ways(stage) as ways:
        idle = await _idle(ways.calls, stage)
        loaded = await _loaded(ways, stage)
    rows, shares = [], {}
    for case, seconds in (("idle", idle), ("20 jobs/s", loaded)):
        rows += [Row(case, name, spread(values)) for name, values in seconds.items()]
        direct = percentile(seconds[SDK], 50)
        shares[case] = [through - direct for through in seconds[OURS]]
        rows.append(Row(case, "the queue's share", spread(shares[case])))
    return Finding(
        letter="C2",
        title="First token over HTTP, through the whole stack; the provider answers at once",
        rows=rows,
        compare="p50 ms",
        targets=[
            Target("queue's share of TTFT at 20 jobs/s, p50", _ms(shares["20 jobs/s"], 50), 8, "ms"),
            Target("queue's share of TTFT at 20 jobs/s, p99", _ms(shares["20 jobs/s"], 99), 25, "ms"),
        ],
        notes=[
            "The queue's share: each job's time less the median of the calls through the SDK made between them.",
            "A bare socket is what no program uses, and the least that the provider itself takes.",
        ],
    )


@asynccontextmanager
async def _ways(stage: Stage) -> AsyncIterator[Ways]:
    provider = await stage.python("bench.instant_server")
    port = int(await provider.line())
    base_url = f"http://127.0.0.1:{port}/v1"
    env = stage.environment(openai_base_url=base_url, openai_models=MODEL, log_level="info", log_json="1")
    web = await stage.python("cli.main", "web", "--port", "0", **env)
    worker = await stage.python("cli.main", "worker", "--lane", "api", **env)
    web_port = await _port_of(web)
    await worker.logged("worker is ready")
    bare = Calls(port, "/v1/chat/completions", {"model": MODEL, "messages": _PROMPT, "stream": True}, b'"word0 "')
    ours = Calls(web_port, "/v1/jobs", {"model": f"openai/{MODEL}", "messages": _PROMPT}, b'"type":"token"')
    sdk = openai.AsyncOpenAI(api_key="none", base_url=base_url, max_retries=0)
    with bare, ours:
        async with sdk:
            through_sdk = partial(sdk_caller.first_token, sdk, MODEL)
            yield Ways({OURS: ours.first_token, SDK: through_sdk, BARE: bare.first_token}, base_url)


async def _idle(calls: dict[str, Call], stage: Stage) -> dict[str, list[float]]:
    """One call after the other, the three ways in turn."""
    rounds = (_IDLE_QUICK if stage.quick else _IDLE_ROUNDS) + _WARM_UP
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(rounds):
        stage.say(f"first token: round {done + 1} of {rounds}, one call at a time")
        for name, call in calls.items():
            await asyncio.sleep(random.uniform(0.01, 0.04))
            seconds[name].append(await call())
    return {name: values[_WARM_UP:] for name, values in seconds.items()}


async def _loaded(ways: Ways, stage: Stage) -> dict[str, list[float]]:
    """Jobs come as a Poisson process, whether those before them are done or not; between them, half as often, bare calls from
    here and calls through the SDK from a process of its own. Neither loads anything of ours."""
    length_s = _LOADED_QUICK_S if stage.quick else _LOADED_S
    arguments = (ways.base_url, MODEL, str(_JOBS_PER_S / 2), str(length_s))
    caller = await stage.python("bench.sdk_caller", *arguments, may_end=True)
    await caller.line()  # "begins"
    seconds: dict[str, list[float]] = {OURS: [], SDK: [], BARE: []}

    async def timed(name: str) -> None:
        seconds[name].append(await ways.calls[name]())

    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.TaskGroup() as group:
        while (passed := loop.time() - begun) < length_s:
            stage.say(f"first token: 20 jobs/s, {passed:.0f} of {length_s:g} s")
            group.create_task(timed(OURS))
            await asyncio.sleep(random.expovariate(2 * _JOBS_PER_S))
            if random.random() < 0.5:
                group.create_task(timed(BARE))
            await asyncio.sleep(random.expovariate(2 * _JOBS_PER_S))
    seconds[SDK] = json.loads(await caller.line())
    await caller.stop()
    return seconds


async def _port_of(web: Child) -> int:
    line = await web.logged("web is listening")
    return int(json.loads(line)["port"])


def _ms(seconds: list[float], percent: float) -> float:
    return round(percentile(seconds, percent) * 1000, 3)
