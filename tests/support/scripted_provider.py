"""A provider whose answer is known to the letter: for tests that run a worker inside their own process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from shared.events import Token, Usage
from worker.providers.base import Call, Delta, Finish


class ScriptedProvider:
    """Streams `words`, one every `pace_s` seconds, then usage and finish. A list of deltas or an exception may stand in the
    script instead. `scripts`, where there are any, are the scripts of the next calls; after them it is `script` again. With
    `continues`, a call with a prefix goes on after as many words as the prefix holds."""

    def __init__(
        self,
        words: Sequence[str | Delta | Exception] = ("Hello", ", ", "world"),
        pace_s: float = 0.0,
        name: str = "openai",
    ) -> None:
        self.name = name
        self.script: list[str | Delta | Exception] = list(words)
        self.scripts: list[list[str | Delta | Exception]] = []
        self.pace_s = pace_s
        self.continues = False
        self.calls: list[Call] = []
        self.open = 0
        self.refuses: Exception | None = None
        """Raised instead of opening a stream."""
        self.gate: asyncio.Event | None = None
        """When set, words leave only while it is set: tests decide how far an answer gets."""

    def can_continue(self, call: Call) -> bool:
        return self.continues

    async def start(self) -> None:
        pass

    async def close(self) -> None:
        pass

    @asynccontextmanager
    async def stream(self, call: Call) -> AsyncIterator[AsyncIterator[Delta]]:
        self.calls.append(call)
        if self.refuses is not None:
            raise self.refuses
        self.open += 1
        try:
            yield self._deltas(call)
        finally:
            self.open -= 1

    async def _deltas(self, call: Call) -> AsyncIterator[Delta]:
        script = list(self.scripts.pop(0) if self.scripts else self.script)
        kept = call.prefix.text if call.prefix else ""
        while kept:
            word = script.pop(0)
            assert isinstance(word, str), "prefixes are of words"
            assert kept.startswith(word), f"{kept!r} is not a start of the script"
            kept = kept.removeprefix(word)
        for said, item in enumerate(script, 1):
            if self.pace_s:
                await asyncio.sleep(self.pace_s)
            if self.gate is not None:
                await self.gate.wait()
            if isinstance(item, Exception):
                raise item
            if call.max_tokens is not None and said > call.max_tokens:
                yield Finish("length")
                return
            yield Token(item) if isinstance(item, str) else item
            if isinstance(item, Finish):
                return
        yield Usage(input_tokens=7, output_tokens=len(script))
        yield Finish("stop")
