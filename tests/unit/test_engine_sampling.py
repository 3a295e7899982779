"""How a request and the model's defaults become one job's sampling."""

import pytest

from shared.job import JobRequest
from worker.engine.sampling import Sampling, SamplingDefaults, sampling_for

GREEDY = SamplingDefaults()
SAMPLES = SamplingDefaults(temperature=0.6, top_p=0.9, top_k=40)


def request(**fields: object) -> JobRequest:
    return JobRequest(model="local/any", prompt="Hi", **fields)  # type: ignore[arg-type]


def test_without_a_wish_the_model_decides() -> None:
    assert sampling_for(request(), GREEDY).greedy
    asked = sampling_for(request(), SAMPLES)
    assert (asked.temperature, asked.top_p, asked.top_k) == (0.6, 0.9, 40)


def test_temperature_0_is_greedy_whatever_the_model_says() -> None:
    assert sampling_for(request(temperature=0.0, top_p=0.5), SAMPLES).greedy


@pytest.mark.parametrize(
    ("fields", "temperature", "top_p"),
    [({"temperature": 0.7}, 0.7, 1.0), ({"top_p": 0.8}, 1.0, 0.8), ({"temperature": 2.0, "top_p": 0.1}, 2.0, 0.1)],
)
def test_one_wish_makes_a_greedy_model_sample(fields: dict[str, object], temperature: float, top_p: float) -> None:
    asked = sampling_for(request(**fields), GREEDY)
    assert (asked.temperature, asked.top_p, asked.top_k) == (temperature, top_p, 0)


def test_what_is_left_unset_is_the_models() -> None:
    assert sampling_for(request(top_p=0.5), SAMPLES).temperature == 0.6
    assert sampling_for(request(temperature=1.5), SAMPLES).top_p == 0.9


def test_a_seed_is_kept_and_does_not_make_it_random() -> None:
    assert sampling_for(request(seed=7), GREEDY) == Sampling(seed=7)


def test_without_a_seed_each_job_draws_its_own() -> None:
    assert len({sampling_for(request(temperature=1.0), GREEDY).seed for _ in range(20)}) == 20
