"""Jobs of the default model in this process, so many at once or one after the other. No queue, no log: what an engine gives.

Run as `python -m bench.engine_jobs WAY TOKENS CASES`, CASES being numbers of jobs, `1,8`; WAY is

    ours      the local lane's provider: all jobs of a case at once
    generate  transformers' `generate()` with a `TextIteratorStreamer`, as its documentation shows it: one job after the other

Prints the device, then one line of JSON a case. In it the seconds to each job's first text from its own beginning and, of ours,
those between one token and the next; a `TextIteratorStreamer` gives words, not tokens.
"""

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from threading import Thread
from typing import Any, Final, NamedTuple

import uvloop

from bench.prompts import Prompts
from shared.events import Token, Usage
from shared.job import JobRequest
from shared.logs import set_up_logs
from shared.models import local_model_sources
from shared.settings import Settings, load_settings
from worker.engine import runtime
from worker.engine.model_files import find_model
from worker.providers.base import Call
from worker.providers.local import LocalProvider


class Made(NamedTuple):
    """One job's answer: seconds to its first text, its tokens, and the seconds from each to the next where they are known."""

    ttft_s: float
    tokens: int
    gaps_s: list[float]


Run = Callable[[int, int], Awaitable[list[Made]]]
"""So many jobs of so many tokens."""


class Ours:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._provider = LocalProvider(settings)
        self._prompts = Prompts()

    async def start(self) -> str:
        """Loads the model; the device it is on."""
        await self._provider.start()
        return _device(self._settings)

    async def run(self, jobs: int, tokens: int) -> list[Made]:
        return await asyncio.gather(*(self._answer(i, tokens) for i in range(jobs)))

    async def close(self) -> None:
        await self._provider.close()

    async def _answer(self, i: int, tokens: int) -> Made:
        request = JobRequest(model=self._settings.default_model, prompt=self._prompts(), temperature=0)
        begun, at, made = time.perf_counter(), list[float](), 0
        async with self._provider.stream(Call(f"job_{i}", _name(self._settings), request, tokens)) as deltas:
            async for delta in deltas:
                if isinstance(delta, Token):
                    at.append(time.perf_counter())
                elif isinstance(delta, Usage):
                    made = delta.output_tokens
        return Made(at[0] - begun, made, [after - before for before, after in pairwise(at)])


class Generate:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._prompts = Prompts()

    async def start(self) -> str:
        """Loads the model as anybody would; the device it is on."""
        runtime.prepare(offline=True)
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = find_model(local_model_sources(self._settings)[_name(self._settings)], self._settings.cache_dir).path
        device = _device(self._settings)
        dtype = torch.float32 if device == "cpu" else "auto"  # as ours has it
        self._tokenizer = AutoTokenizer.from_pretrained(path)
        self._model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device)
        return device

    async def run(self, jobs: int, tokens: int) -> list[Made]:
        return [await asyncio.to_thread(self._answer, tokens) for _ in range(jobs)]

    async def close(self) -> None:
        pass

    def _answer(self, tokens: int) -> Made:
        from transformers import TextIteratorStreamer

        begun, first = time.perf_counter(), 0.0
        chat = [{"role": "user", "content": self._prompts()}]
        inputs: Any = self._tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        inputs = inputs.to(self._model.device)
        streamer = TextIteratorStreamer(self._tokenizer, skip_prompt=True, skip_special_tokens=True)
        ids: list[Any] = []

        def generate() -> None:
            ids.append(self._model.generate(**inputs, streamer=streamer, max_new_tokens=tokens, do_sample=False))

        thread = Thread(target=generate)
        thread.start()
        for text in streamer:
            if text:
                first = first or time.perf_counter()
        thread.join()
        return Made(first - begun, int(ids[0].shape[1] - inputs["input_ids"].shape[1]), [])


def _name(settings: Settings) -> str:
    """Of the default model, which is a local one."""
    return settings.default_model.partition("/")[2]


def _device(settings: Settings) -> str:
    from worker.engine.loading import pick_device

    return str(pick_device(settings.local_device).type)


async def case(run: Run, jobs: int, tokens: int) -> dict[str, Any]:
    cpu_s, begun = time.process_time(), time.perf_counter()
    made = await run(jobs, tokens)
    seconds = time.perf_counter() - begun
    return {
        "jobs": jobs,
        "tokens": sum(answer.tokens for answer in made),
        "seconds": seconds,
        "cpu_s": time.process_time() - cpu_s,
        "ttft_s": [answer.ttft_s for answer in made],
        "gaps_s": [gap for answer in made for gap in answer.gaps_s],
    }


WAYS: Final[dict[str, type[Ours] | type[Generate]]] = {"ours": Ours, "generate": Generate}
_WARM_UP: Final = 2


async def main(way: str, tokens: int, cases: list[int]) -> None:
    settings = load_settings()
    set_up_logs(settings)
    engine = WAYS[way](settings)
    print(await engine.start(), flush=True)
    await engine.run(1, _WARM_UP)
    for jobs in cases:
        print(json.dumps(await case(engine.run, jobs, tokens)), flush=True)
    await engine.close()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2]), [int(jobs) for jobs in sys.argv[3].split(",")]))
