"""The text of a local model after its worker was killed is what an undisturbed run gives, token for token (P4).

Fifty prompts, float32 on the CPU, greedy, eight at a time in one worker process: once undisturbed, once with the worker killed
at a moment that finds each of the eight at a random token of its own. Minutes of CPU, so not in CI (CONTRIBUTING.md); cuts
within one process are, in tests/unit/test_providers_local.py.
"""

import itertools
import random
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

import pytest

from shared import keys
from shared.events import Done, Token
from tests.support.local_model import MODEL, loaded_model, prompt_of
from tests.support.reading import Reading
from tests.support.stack import Stack
from tests.support.truth import Stored, assert_nothing_is_left_in_the_queue, assert_sound, starts
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.model, pytest.mark.timeout(1200)]

SEED = 20_251_125
AT_ONCE, TOKENS = 8, 56
PATIENCE_S = 240.0
TIE = 1e-3
"""The two best logits of a step that may go either way: float32 sums depend on who else is in the batch."""

OPENINGS = (
    "Write a short story about", "Explain in detail", "List the main facts about", "Describe for a child",
    "Write a long letter about",
)  # fmt: skip
SUBJECTS = ("a lighthouse", "the sea", "bees", "the moon", "a station", "bread", "winter", "a library", "rivers", "clocks")
PROMPTS = [f"{opening} {subject}." for subject, opening in itertools.product(SUBJECTS, OPENINGS)]


class Answer(NamedTuple):
    """A job's answer as its log holds it. `killed_at` is how many tokens it had when its worker died, None if it did not."""

    ids: tuple[int, ...]
    killed_at: int | None


async def submit(stack: Stack, prompt: str, **sampling: object) -> str:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": TOKENS, "temperature": 0.0, **sampling}
    answer = await stack.http.post("/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def new_worker(stack: Stack) -> "subprocess.Popen[bytes]":
    return stack.processes.worker("local", lanes="local", local_device="cpu", local_slots=AT_ONCE, max_losses=1)


async def answer_of(stack: Stack, job_id: str, reading: Reading) -> Answer:
    """Waits for the end. Nothing may be lost or doubled on the way, and the reader holds what the log holds."""
    await reading.to_the_end(PATIENCE_S)
    log = await stack.log(job_id)
    assert_sound(log)
    assert isinstance(log[-1].event, Done)
    assert [start.reset for start in starts(log)] == [False] * len(starts(log)), "it goes on, exactly"
    reading.assert_whole("".join(token.text for token in _tokens(log)))
    first = sum(len(entry.event.ids) for entry in log if isinstance(entry.event, Token) and entry.id.attempt == 1)
    return Answer(tuple(i for token in _tokens(log) for i in token.ids), first if len(starts(log)) > 1 else None)


def _tokens(log: list[Stored]) -> list[Token]:
    return [entry.event for entry in log if isinstance(entry.event, Token)]


async def undisturbed(stack: Stack, prompts: Sequence[str]) -> list[Answer]:
    job_ids = [await submit(stack, prompt) for prompt in prompts]
    readings = [stack.read(job_id) for job_id in job_ids]
    return [await answer_of(stack, *of) for of in zip(job_ids, readings, strict=True)]


async def killed(
    stack: Stack, worker: "subprocess.Popen[bytes]", prompts: Sequence[str], chance: random.Random, **sampling: object
) -> tuple[list[Answer], "subprocess.Popen[bytes]"]:
    """One batch whose worker is killed, and the worker that came after it.

    The jobs advance in step, so each is submitted when the first of them is as far as it will be ahead at the kill.
    """
    cuts = sorted(chance.sample(range(2, TOKENS - 8), len(prompts)), reverse=True)
    first, job_ids, readings = "", [], []
    for prompt, cut in zip(prompts, cuts, strict=True):
        if first:
            await _until_tokens(stack, first, cuts[0] - cut)
        job_ids.append(await submit(stack, prompt, **sampling))
        readings.append(stack.read(job_ids[-1]))
        first = job_ids[0]
    await _until_tokens(stack, first, cuts[0])
    worker.kill()
    replacement = new_worker(stack)
    return [await answer_of(stack, *of) for of in zip(job_ids, readings, strict=True)], replacement


async def _until_tokens(stack: Stack, job_id: str, n: int) -> None:
    async def reached() -> bool:
        entries: int = await stack.redis.xlen(keys.log(job_id))
        return entries >= n + 2 or (await stack.field(job_id, "status")) == "done"  # after `queued` and `started`

    await wait_until(reached, PATIENCE_S, f"{n} tokens of {job_id}, or its end")


async def test_after_a_kill_the_text_is_what_an_undisturbed_run_gives(stack: Stack) -> None:
    stack.processes.start("web", "--port", str(stack.processes.port), lanes="local")
    worker = new_worker(stack)
    await stack.processes.ready()
    whole = await undisturbed(stack, PROMPTS)
    assert {answer.killed_at for answer in whole} == {None}
    assert min(len(answer.ids) for answer in whole) > TOKENS - 8, "each is long enough to be killed at any token"

    chance, answers = random.Random(SEED), list[Answer]()
    for start in range(0, len(PROMPTS), AT_ONCE):
        batch, worker = await killed(stack, worker, PROMPTS[start : start + AT_ONCE], chance)
        answers += batch
    diverged = [i for i, (one, other) in enumerate(zip(whole, answers, strict=True)) if one.ids != other.ids]
    gaps = {i: _gap_where_they_part(PROMPTS[i], whole[i].ids, answers[i].ids) for i in diverged}
    _print_table(whole, answers, gaps)
    assert None not in {answer.killed_at for answer in answers}, "each was hit in mid-stream"
    assert len(gaps) <= len(PROMPTS) // 50
    assert all(gap < TIE for gap in gaps.values()), gaps

    sampled, _ = await killed(stack, worker, PROMPTS[:AT_ONCE], chance, temperature=0.9)  # `answer_of` compares
    print(f"figure: temperature 0.9, killed at {[answer.killed_at for answer in sampled]}: lost 0, doubled 0")
    assert sum(answer.killed_at is not None for answer in sampled) >= AT_ONCE / 2, "the others ended by themselves before"
    await assert_nothing_is_left_in_the_queue(stack.redis, [], "local")


def _gap_where_they_part(prompt: str, one: tuple[int, ...], other: tuple[int, ...]) -> float:
    """Between the two best logits at the first token that differs."""
    import torch

    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    logits = loaded_model().model(torch.tensor([[*prompt_of(prompt), *one[:same]]])).logits[0, -1]
    best, second = torch.topk(logits, 2).values.tolist()
    return float(best - second)


def _print_table(whole: list[Answer], answers: list[Answer], gaps: dict[int, float]) -> None:
    tokens = sum(len(one.ids) for one in whole)
    print(f"figure: takeover text, seed {SEED}: {len(answers)} prompts, {tokens} tokens undisturbed")
    print("figure: prompt | tokens | killed at | token for token")
    for i, (one, other) in enumerate(zip(whole, answers, strict=True)):
        verdict = f"parts at a gap of {gaps[i]:.2e}" if i in gaps else "equal"
        print(f"figure: {i:2} | {len(one.ids)} | {other.killed_at} | {verdict}")
    print(f"figure: takeover text: {len(answers) - len(gaps)} of {len(answers)} equal, {len(gaps)} parted")
