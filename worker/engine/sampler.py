"""Scores → the next id, for one row at a time, the same in both engines.

A draw from probabilities p is the argmax of log p + g with Gumbel noise g. The noise of an id is a hash of the job's seed, the
position in the sequence and the id itself: no generator, so no state. No job disturbs another's draws, and an answer that
another worker continues, on another machine, draws what it would have drawn.
"""

from typing import Any, Final

import torch

from worker.engine.sampling import Sampling

NUCLEUS_SIZES: Final = (128, 1024)
"""How many of the likeliest ids are looked at for `top_p` before all are sorted: a step of 0.1, 0.6 and 5 ms."""

_WORD: Final = 2**64 - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_MIX_1: Final = 0xBF58476D1CE4E5B9
_MIX_2: Final = 0x94D049BB133111EB
"""The constants of splitmix64 (Steele, Lea and Flood 2014)."""


def next_id(scores: Any, sampling: Sampling, position: int) -> int:
    """The id that follows. `scores`: one row over the vocabulary, not changed; `position`: ids before this one."""
    if sampling.greedy:
        return int(scores.argmax())
    logits = scores.detach().to("cpu", torch.float32) / sampling.temperature
    kept = _kept(logits, sampling)
    ids = torch.arange(logits.numel()) if kept is None else kept
    return int(ids[(logits[ids] + _gumbel(ids, sampling.seed, position)).argmax()])


def _kept(logits: Any, sampling: Sampling) -> Any | None:
    """The ids that `top_k` and `top_p` leave, likeliest first; None: all of them."""
    vocabulary = logits.numel()
    cut = 0 < sampling.top_k < vocabulary
    if sampling.top_p >= 1:
        return logits.topk(sampling.top_k).indices if cut else None
    # top_p counts within what top_k leaves, as it does in transformers.
    for k in (sampling.top_k,) if cut else (*(size for size in NUCLEUS_SIZES if size < vocabulary), vocabulary):
        values, ids = logits.topk(k)
        whole = (values if cut else logits).logsumexp(0)
        reached = (values - whole).exp().cumsum(0)
        if cut or k == vocabulary or reached[-1] >= sampling.top_p:
            return ids[: int((reached < sampling.top_p).sum()) + 1]
    raise AssertionError("the last k holds all")


def _gumbel(ids: Any, seed: int, position: int) -> Any:
    """Noise for each id, in double precision: single would give none above 16, and so never draw what is unlikely."""
    hashed = _hashed(ids * _signed(_GOLDEN) + _signed(_mixed(seed, position)))
    uniform = ((_shifted(hashed, 11)).to(torch.float64) + 0.5) / 2**53
    return -(-uniform.log()).log()


def _mixed(seed: int, position: int) -> int:
    """One 64-bit word of seed and position (splitmix64)."""
    z = (seed + _GOLDEN * (position + 1)) & _WORD
    z = ((z ^ (z >> 30)) * _MIX_1) & _WORD
    z = ((z ^ (z >> 27)) * _MIX_2) & _WORD
    return z ^ (z >> 31)


def _hashed(z: Any) -> Any:
    """The same mixing for a row of words; torch's 64-bit integers wrap as it needs."""
    z = (z ^ _shifted(z, 30)) * _signed(_MIX_1)
    z = (z ^ _shifted(z, 27)) * _signed(_MIX_2)
    return z ^ _shifted(z, 31)


def _shifted(z: Any, bits: int) -> Any:
    """To the right without the sign, which torch's `>>` keeps."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(word: int) -> int:
    return word - 2**64 if word >= 2**63 else word
