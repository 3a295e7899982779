"""bench/local_engine.py: what an engine's process says, as figures and targets."""

from bench.figures import OURS
from bench.local_engine import GENERATE, _row, _targets


def test_a_case_in_figures() -> None:
    said = {"jobs": 2, "tokens": 96, "seconds": 4.0, "cpu_s": 4.8, "ttft_s": [0.2, 0.4]}
    row = _row(OURS, 2, said)
    assert (row.case, row.server) == ("2 at once", OURS)
    assert row.figures == {
        "ms/token": 41.7,
        "tokens/s": 24.0,
        "TTFT p50 ms": 200,
        "TTFT p99 ms": 400,
        "CPU ms/token": 50.0,
        "tokens": 96,
    }


def test_eight_jobs_are_held_against_one_after_the_other() -> None:
    def said(tokens: int) -> dict[str, object]:
        return {"tokens": tokens, "seconds": 1.0, "cpu_s": 1.0, "ttft_s": [0.9]}

    targets = _targets([_row(OURS, 1, said(18)), _row(OURS, 8, said(61)), _row(GENERATE, 1, said(20))])
    assert [(target.value, target.met) for target in targets] == [(3.05, True), (900, True), (0.9, True)]
