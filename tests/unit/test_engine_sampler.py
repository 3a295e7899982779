"""Scores → the next id: the right distribution, nobody disturbed, repeatable by seed and position."""

from collections import Counter

import pytest
import torch
from transformers import TopKLogitsWarper, TopPLogitsWarper

from worker.engine import sampler
from worker.engine.sampler import next_id
from worker.engine.sampling import Sampling

PROBABILITIES = [0.5, 0.25, 0.15, 0.07, 0.03]
SCORES = torch.tensor(PROBABILITIES).log()
SEEN = [0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 1, 3, 0, 0, 0, 2, 3, 1, 0, 0]
"""The draws for the largest seed, as first seen: workers of different machines and releases must agree."""


def drawn(sampling: Sampling, draws: int = 2_000) -> dict[int, float]:
    counted = Counter(next_id(SCORES, sampling, position) for position in range(draws))
    return {token: counted[token] / draws for token in sorted(counted)}


def test_greedy_takes_the_likeliest() -> None:
    assert next_id(SCORES, Sampling(), 0) == 0


def test_draws_follow_the_probabilities() -> None:
    shares = drawn(Sampling(temperature=1.0, seed=1))
    assert shares == {i: pytest.approx(p, abs=0.04) for i, p in enumerate(PROBABILITIES)}


def test_temperature_sharpens_and_flattens() -> None:
    assert drawn(Sampling(temperature=0.5, seed=1))[0] == pytest.approx(0.25 / 0.3528, abs=0.04)
    assert drawn(Sampling(temperature=2.0, seed=1))[0] == pytest.approx(0.345, abs=0.04)


def test_top_p_and_top_k_leave_the_likeliest() -> None:
    assert set(drawn(Sampling(temperature=1.0, top_p=0.6, seed=1))) == {0, 1}
    assert set(drawn(Sampling(temperature=1.0, top_k=3, seed=1))) == {0, 1, 2}
    assert set(drawn(Sampling(temperature=1.0, top_p=0.01, seed=1))) == {0}
    assert set(drawn(Sampling(temperature=1.0, top_p=0.8, top_k=2, seed=1))) == {0, 1}


def test_seed_and_position_decide_the_draw_and_nothing_else_does() -> None:
    sampling = Sampling(temperature=1.0, seed=7)
    first = [next_id(SCORES, sampling, position) for position in range(50)]
    torch.rand(3)
    next_id(SCORES, Sampling(temperature=1.0, seed=8), 3)
    assert [next_id(SCORES, sampling, position) for position in range(50)] == first
    assert [next_id(SCORES, Sampling(temperature=1.0, seed=8), position) for position in range(50)] != first


def test_a_draw_is_the_same_on_every_machine() -> None:
    sampling = Sampling(temperature=1.0, seed=2**63 - 1)
    assert [next_id(SCORES, sampling, position) for position in range(20)] == SEEN


def test_torchs_own_generator_is_not_touched() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    next_id(SCORES, Sampling(temperature=1.0, seed=7), 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_scores_are_not_changed() -> None:
    scores = SCORES.clone()
    next_id(scores, Sampling(temperature=0.3, top_p=0.5, seed=7), 0)
    assert torch.equal(scores, SCORES)


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9, 0.99, 0.9999])
@pytest.mark.parametrize("top_k", [0, 40])
def test_what_top_p_and_top_k_keep_is_what_transformers_keeps(top_p: float, top_k: int) -> None:
    scores = torch.randn(5_000, generator=torch.Generator().manual_seed(1)) * 2
    theirs = TopKLogitsWarper(top_k)(None, scores[None]) if top_k else scores[None]
    theirs = TopPLogitsWarper(top_p)(None, theirs)[0]
    kept = sampler._kept(scores, Sampling(temperature=1.0, top_p=top_p, top_k=top_k))
    assert kept is not None
    assert sorted(kept.tolist()) == torch.isfinite(theirs).nonzero().flatten().tolist()
