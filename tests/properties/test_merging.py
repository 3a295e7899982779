"""Merging, for every log: ids stay contiguous, nothing joins that should not, what was said stays what it was (protocol 3)."""

import json
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from shared.events import to_data
from tests.properties.strategies import Log, frames_of, logs
from web.sse import Frame, merged, split_frames

limits = st.integers(1, 400)


def kind_of(frame: Frame) -> tuple[Any, ...]:
    data = json.loads(frame.data)
    return frame.id.attempt, data["type"], data.get("index")


def parts_of(log: Log, frame: Frame) -> Log:
    """The entries that a merged frame stands for."""
    n = json.loads(frame.data).get("n", 1)
    end = next(i for i, (event_id, _) in enumerate(log) if event_id == frame.id) + 1
    return log[end - n : end]


@given(logs(), limits)
def test_each_frame_stands_for_neighbours_of_one_attempt_and_kind(log: Log, limit: int) -> None:
    covered = []
    for frame in merged(frames_of(log), limit):
        parts = parts_of(log, frame)
        assert {kind_of(Frame(event_id, to_data(event))) for event_id, event in parts} == {kind_of(frame)}
        covered += [event_id for event_id, _ in parts]
    assert covered == [event_id for event_id, _ in log]


@given(logs(), limits)
def test_joined_text_is_the_text_of_its_parts(log: Log, limit: int) -> None:
    for frame in merged(frames_of(log), limit):
        data = json.loads(frame.data)
        parts = [json.loads(to_data(event)) for _, event in parts_of(log, frame)]
        for name in ("text", "arguments"):
            assert data.get(name, "") == "".join(part.get(name, "") for part in parts)
        for name in set(data) - {"text", "arguments", "n"}:
            assert data[name] == parts[0][name]


@given(logs(), limits)
def test_no_merged_frame_is_over_the_limit(log: Log, limit: int) -> None:
    """One larger entry goes alone."""
    for frame in merged(frames_of(log), limit):
        assert len(frame.encode()) <= limit or "n" not in json.loads(frame.data)


@given(logs())
def test_as_few_frames_as_the_limit_allows(log: Log) -> None:
    """Rule 5: without a limit to speak of, no two neighbours are left that could be one. A tool call that brings its id or
    name opens a frame of its own."""
    for before, frame in pairwise(merged(frames_of(log), 1 << 20)):
        opens = {"id", "name"} & (set(json.loads(frame.data)) | set(json.loads(before.data)))
        joinable = kind_of(before) == kind_of(frame) and kind_of(frame)[1] in ("token", "reasoning", "refusal", "tool_call")
        assert not joinable or (kind_of(frame)[1] == "tool_call" and opens)


@given(logs(), limits)
def test_merging_what_is_merged_changes_nothing_that_is_said(log: Log, limit: int) -> None:
    """A frame that says `n` is never joined again: its count would be lost."""
    once = list(merged(frames_of(log), limit))
    assert list(merged(once, limit)) == once


@given(logs())
def test_frames_are_encoded_and_split_without_loss(log: Log) -> None:
    frames = frames_of(log)
    assert list(split_frames(b"".join(frame.encode() for frame in frames))) == frames
