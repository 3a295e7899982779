"""shared/push.py: what a log tells those who follow it."""

import pytest

from shared.ids import EventId
from shared.push import Push, parse_push


def test_a_push_is_a_header_line_and_frames() -> None:
    assert parse_push(b"1-3 1-5 2 .\nid: 1-4\ndata: {}\n\nid: 1-5\ndata: {}\n\n") == Push(
        EventId(1, 3), EventId(1, 5), 2, False, b"id: 1-4\ndata: {}\n\nid: 1-5\ndata: {}\n\n"
    )


def test_the_mark_says_that_the_log_has_ended() -> None:
    assert parse_push(b"0-1 0-2 1 !\nid: 0-2\ndata: {}\n\n").terminal


@pytest.mark.parametrize("message", [b"", b"\n", b"1-3 1-5 2\n", b"1-3 1-5 x .\n", b"a b 1 .\n", b"1-3 1-5 2 . more\n"])
def test_what_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # each part of it says so in its own words
        parse_push(message)
