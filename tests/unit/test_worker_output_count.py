"""worker/output_count.py: what a job counts as its output: text, reasoning, refusal, tool calls, each joined by itself."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.events import Content, Reasoning, Refusal, Started, Token, ToolCall
from shared.fold import Fold
from shared.ids import EventId
from tests.properties.strategies import contents
from worker.output_count import OutputCount
from worker.tokens import load_encoding

ENCODING = load_encoding()


def counted(*pieces: Content) -> OutputCount:
    count = OutputCount(lambda: ENCODING)
    for piece in pieces:
        count.add(piece)
    return count


def kept(*pieces: Content) -> Fold:
    state = Fold()
    state.add(EventId(1, 0), Started(1, "m", "w", "first", False, "0-1"))
    for n, piece in enumerate(pieces, 1):
        state.add(EventId(1, n), piece)
    return state


def tokens_of(text: str) -> int:
    return len(ENCODING.encode_ordinary(text))


def test_nothing_is_nothing_and_needs_no_encoding() -> None:
    count = OutputCount(lambda: None)
    assert (count.needs_encoding, count.total()) == (False, 0)


def test_each_text_is_joined_by_itself() -> None:
    said = counted(Token("un"), Reasoning("because"), Token("believ"), Refusal("no"), Token("able"))
    assert said.total() == tokens_of("unbelievable") + tokens_of("because") + tokens_of("no")


def test_token_ids_are_counted_as_they_are() -> None:
    count = OutputCount(lambda: None)
    count.add(Token("abc", (1, 2)))
    count.add(Token("d", (3,)))
    assert (count.needs_encoding, count.total()) == (False, 3)


def test_a_fork_goes_its_own_way() -> None:
    before = counted(Token("unbeliev"), ToolCall(0, arguments="{"))
    after = before.fork()
    after.add(Token("able"))
    after.add(ToolCall(0, arguments='"a":1}'))
    after.add(Reasoning("because"))
    assert before.total() == tokens_of("unbeliev") + 1 + tokens_of("{")
    assert after.total() == tokens_of("unbelievable") + 1 + tokens_of('{"a":1}') + tokens_of("because")


def test_a_tool_call_counts_one_and_its_arguments() -> None:
    pieces = [
        ToolCall(0, id="a", name="f"),
        ToolCall(0, arguments='{"ci'),
        ToolCall(1, id="b"),
        ToolCall(0, arguments='ty":1}'),
    ]
    assert counted(*pieces).total() == 2 + tokens_of('{"city":1}')


@given(st.lists(contents, max_size=8))
def test_a_log_counts_what_its_pieces_did(pieces: list[Content]) -> None:
    """But where only some pieces have token ids: those of a log that two kinds of model wrote are counted anew."""
    pieces = [Token(p.text) if isinstance(p, Token) else p for p in pieces]
    assert OutputCount.of(kept(*pieces), lambda: ENCODING).total() == counted(*pieces).total()


@given(st.lists(contents, max_size=8), contents)
def test_it_knows_a_bound_for_nothing(pieces: list[Content], more: Content) -> None:
    count = counted(*pieces)
    bound = count.most(more)
    count.add(more)
    assert count.total() <= count.most() <= bound


@given(st.lists(contents, max_size=8), contents, st.integers(1, 9))
def test_what_fits_adds_no_more_than_the_room(pieces: list[Content], more: Content, room: int) -> None:
    count = counted(*pieces)
    before = count.total()
    fits = count.fitting(more, room)
    assert count.total() == before, "it was only asked"
    if fits is not None:
        count.add(fits)
        assert count.total() <= before + room
    if fits == more:
        return
    assert counted(*pieces, more).total() > before + room


@pytest.mark.parametrize("pieces", [[ToolCall(0, id="a")], [Token("a")], [Reasoning("a")], [Refusal("a")]])
def test_whatever_is_put_out_counts_something(pieces: list[Content]) -> None:
    """Recovery takes a count of 0 for an empty log."""
    assert kept(*pieces).kept_tokens > 0
    assert counted(*pieces).total() > 0
