"""bench/local_engine.py and what it runs: what an engine's process says, as figures and targets; models of random weights."""

import os
from pathlib import Path
from typing import Any

import pytest

from bench import engine_jobs, random_model
from bench.figures import OURS
from bench.local_engine import GAP, GENERATE, LARGE, _targets, large_targets, row_of
from shared.settings import Settings
from worker.engine.model_files import find_model

TINY = random_model.Shape(hidden=16, layers=2, heads=2, kv_heads=1, intermediate=32, context=256)


def said(tokens: int, **more: object) -> dict[str, object]:
    return {"tokens": tokens, "seconds": 1.0, "cpu_s": 1.0, "ttft_s": [0.9], **more}


def test_a_case_in_figures() -> None:
    row = row_of(OURS, "2 at once", {"tokens": 96, "seconds": 4.0, "cpu_s": 4.8, "ttft_s": [0.2, 0.4], "gaps_s": [0.04]})
    assert (row.case, row.server) == ("2 at once", OURS)
    assert row.figures == {
        "ms/token": 41.7,
        "tokens/s": 24.0,
        "TTFT p50 ms": 200,
        "TTFT p99 ms": 400,
        "CPU ms/token": 50.0,
        "tokens": 96,
        GAP: 40,
    }


def test_eight_jobs_are_held_against_one_after_the_other() -> None:
    rows = [row_of(OURS, "1 job", said(18)), row_of(OURS, "8 at once", said(61)), row_of(GENERATE, "1 job", said(20))]
    assert [(target.value, target.met) for target in _targets(rows)] == [(3.05, True), (900, True), (0.9, True)]


def test_thirty_two_jobs_of_the_large_model_are_held_against_one_after_the_other() -> None:
    ours = row_of(OURS, f"{LARGE}32 at once", said(1300, gaps_s=[0.02] * 98 + [0.051] * 2))
    targets = large_targets([ours, row_of(GENERATE, f"{LARGE}1 job", said(100))])
    assert [(target.value, target.met) for target in targets] == [(13, True), (51, False)]


@pytest.mark.model
async def test_a_model_of_random_weights_answers_in_full_length_each_token_with_text(tmp_path: Path) -> None:
    """As the bench does it where there is a GPU, and with a smaller shape."""
    folder = tmp_path / "tiny"
    random_model.build(TINY, folder, find_model("", Settings().cache_dir).path)
    settings = Settings(local_models={"large": str(folder)}, default_model="local/large", local_device="cpu")
    told: dict[str, Any] = {}
    for way, engine in ((way, made(settings)) for way, made in engine_jobs.WAYS.items()):
        assert await engine.start() == "cpu"
        told[way] = await engine_jobs.case(engine.run, 2, 8)
        await engine.close()
    assert {way: case["tokens"] for way, case in told.items()} == {"ours": 16, "generate": 16}
    assert len(told["ours"]["gaps_s"]) == 14, "between the 8 tokens of each"
    assert os.listdir(tmp_path) == ["tiny"], "nothing half made is left"
