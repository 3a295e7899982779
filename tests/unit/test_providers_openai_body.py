"""worker/providers/openai_body.py: bytes, cut anywhere, to chunks; held against the SDK's own reading of the same bytes."""

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import httpx2
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai._streaming import SSEDecoder

from worker.providers.openai_body import EventData, chunks_of

REQUEST = httpx2.Request("POST", "http://127.0.0.1/v1/chat/completions")


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


async def chunks(*parts: bytes) -> list[Any]:
    return [chunk async for chunk in chunks_of(pieces(*parts), REQUEST)]


@pytest.mark.parametrize(
    ("stream", "data"),
    [
        (b"data: 1\n\ndata: 2\n\n", [b"1", b"2"]),
        (b"data:1\n\n", [b"1"]),
        (b"data:  1\n\n", [b" 1"]),
        (b"data: 1\r\n\r\ndata: 2\r\n\r\n", [b"1", b"2"]),
        (b"data: 1\r\rdata: 2\r\r\n", [b"1", b"2"]),
        (b"data: {\ndata: }\n\n", [b"{\n}"]),
        (b": OPENROUTER PROCESSING\n\nevent: x\nid: 7\nretry: 5\ndata: 1\n\n", [b"1"]),
        (b"event: ping\n\n\n\ndatabase: 1\n\n", []),
        (b"data: 1\n\ndata: cut short\n", [b"1"]),
    ],
)
def test_the_data_of_each_whole_event(stream: bytes, data: list[bytes]) -> None:
    at_once, by_bytes = EventData(), EventData()
    assert at_once.feed(stream) == data
    assert [whole for byte in stream for whole in by_bytes.feed(bytes([byte]))] == data


SOME_LINES = st.lists(st.sampled_from(["data: é🙂", "data:x", ": no", "event: e", "dat", "", ""]), max_size=12)


@given(SOME_LINES, st.sampled_from(["\n", "\r\n"]), st.lists(st.integers(0, 120), max_size=6))
def test_wherever_it_is_cut_it_reads_as_the_sdk_reads_it(lines: list[str], end: str, cuts: list[int]) -> None:
    stream = end.join([*lines, "", ""]).encode()
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    events = EventData()
    data = [d for a, b in pairwise(edges) for d in events.feed(stream[a:b])]
    assert [d.decode() for d in data] == [sse.data for sse in SSEDecoder().iter_bytes(iter([stream])) if sse.data]


async def test_chunks_end_at_done_and_what_follows_stays() -> None:
    body = pieces(b'data: {"a":1}\n\ndata: [DONE]\n\ndata: {"b":2}\n\n', b"more")
    assert [chunk async for chunk in chunks_of(body, REQUEST)] == [{"a": 1}]
    assert await anext(body) == b"more"


async def test_half_of_a_surrogate_pair_is_let_through() -> None:
    assert await chunks(b'data: {"a":"\\ud83d"}\n\n') == [{"a": "\ud83d"}]


@pytest.mark.parametrize("data", [b"{broken", b'{"x":"\xff"}', b""])
async def test_an_event_that_is_no_json_is_an_error_of_the_connection(data: bytes) -> None:
    with pytest.raises((json.JSONDecodeError, UnicodeDecodeError)):
        await chunks(b"data: " + data + b"\n\n")


@pytest.mark.parametrize("error", ["just words", {"message": "no", "type": "server_error", "code": "x"}])
async def test_an_error_event_is_raised_as_the_sdk_raises_it(error: object) -> None:
    with pytest.raises(openai.APIError) as caught:
        await chunks(b'data: {"a":1}\n\n', b"data: " + json.dumps({"error": error}).encode() + b"\n\n")
    assert caught.value.body == error
    assert caught.value.code == (error["code"] if isinstance(error, dict) else None)
