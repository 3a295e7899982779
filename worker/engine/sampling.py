"""How a job's next token is chosen: what the request asks, filled up with the model's own defaults. No torch."""

import secrets

import msgspec

from shared.job import JobRequest


class Sampling(msgspec.Struct, frozen=True):
    """One job's way from scores to a token. Greedy when `temperature` is 0: the rest is then not looked at."""

    temperature: float = 0.0
    top_p: float = 1.0
    """The likeliest tokens that together have at least this probability; 1: all."""
    top_k: int = 0
    """The k likeliest tokens; 0: all."""
    seed: int = 0
    """With the token's position in the sequence it decides each draw: a continued answer draws what it would have drawn."""

    @property
    def greedy(self) -> bool:
        return self.temperature == 0


class SamplingDefaults(msgspec.Struct, frozen=True):
    """What a model's `generation_config.json` says about sampling. Greedy unless it says otherwise."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0


def sampling_for(request: JobRequest, defaults: SamplingDefaults) -> Sampling:
    """The request's sampling. Setting one of `temperature` and `top_p` asks to sample; what is left unset is the model's.

    A `seed` alone does not: it makes repeatable what is already random. Without one each job draws its own.
    """
    asked = request.temperature is not None or request.top_p is not None
    temperature = request.temperature
    if temperature is None:
        temperature = defaults.temperature or (1.0 if asked else 0.0)
    return Sampling(
        temperature=temperature,
        top_p=request.top_p if request.top_p is not None else defaults.top_p,
        top_k=defaults.top_k,
        seed=request.seed if request.seed is not None else secrets.randbits(63),
    )
