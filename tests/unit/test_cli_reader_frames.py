"""The wire to frames: any cut of the bytes gives the same ones."""

import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cli.reader import sse_frames

DATA = st.dictionaries(st.sampled_from(["type", "text", "n"]), st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
FRAMES = st.lists(st.tuples(st.none() | st.from_regex(r"[0-9]{1,3}-[0-9]{1,3}", fullmatch=True), DATA))


async def _read(chunks: list[bytes]) -> list[dict[str, Any]]:
    async def arrive() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [frame async for frame in sse_frames(arrive())]


def frames_of(*chunks: bytes) -> list[dict[str, Any]]:
    """Nothing waits here, so the coroutine runs through without an event loop."""
    try:
        _read(list(chunks)).send(None)
    except StopIteration as done:
        return list(done.value)
    raise AssertionError("it waits")


@given(frames=FRAMES, newline=st.sampled_from(["\n", "\r\n"]), cuts=st.lists(st.integers(0, 400)))
@example(frames=[("1-1", {"text": "é\u2028x"}), (None, {"text": "\x85"})], newline="\r\n", cuts=list(range(200)))
@example(frames=[("1-1", {"text": "é"})], newline="\n", cuts=list(range(200)))
def test_any_chunking_gives_the_same_frames(
    frames: list[tuple[str | None, dict[str, str]]], newline: str, cuts: list[int]
) -> None:
    lines = []
    for event_id, data in frames:
        lines += ([f"id: {event_id}"] if event_id else []) + [f"data: {json.dumps(data, ensure_ascii=False)}", ""]
    stream = "".join(line + newline for line in lines).encode()
    edges = sorted({0, len(stream), *(cut for cut in cuts if cut < len(stream))})
    got = frames_of(*(stream[a:b] for a, b in pairwise(edges)))
    assert got == [data | ({"id": event_id} if event_id else {}) for event_id, data in frames]


def test_an_id_belongs_to_its_own_frame_only() -> None:
    got = frames_of(b'id: 1-1\ndata: {"n": 1}\n\ndata: {"n": 2}\n\nid: 1-2\n\ndata: {"n": 3}\n\n')
    assert got == [{"id": "1-1", "n": 1}, {"n": 2}, {"id": "1-2"}, {"n": 3}]


def test_the_events_id_and_a_tool_calls_own_stay_apart() -> None:
    assert frames_of(b'id: 1-1\ndata: {"id": "call_a"}\n\n') == [{"id": "1-1", "call_id": "call_a"}]


@pytest.mark.parametrize("line", [b"retry: 1500", b"retry:1500"])
def test_one_space_after_the_colon_is_optional(line: bytes) -> None:
    assert frames_of(line + b"\n\n") == [{"retry": "1500"}]


def test_a_comment_is_an_empty_frame_and_unknown_fields_are_nothing() -> None:
    assert frames_of(b": hb\n\n", b'event: x\ndata: {"n": 1}\nother: y\n\n') == [{}, {"n": 1}]


def test_half_a_frame_is_no_frame() -> None:
    assert frames_of(b'data: {"n": 1}\n\nid: 1-1\nda', b'ta: {"n": 2}\n') == [{"n": 1}]
