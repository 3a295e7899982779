"""worker/text_count.py: right for the joined text, however it is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiktoken import Encoding

from tests.properties.strategies import texts
from worker.text_count import LONGEST_TAIL, SETTLE_EVERY, TextCount, last_break
from worker.tokens import load_encoding

ENCODING: Encoding = load_encoding()

prose = st.lists(
    st.sampled_from(["the ", "don't", "'ll", "12345", " x", "  ", "\n", "\n \n", "\t", "。", "，你好", "é", "==", "aB3"])
    | texts,
    min_size=1,
    max_size=60,
)


def counted(*pieces: str) -> TextCount:
    count = TextCount(lambda: ENCODING)
    for piece in pieces:
        count.add(piece)
    return count


def tokens_of(text: str) -> int:
    return len(ENCODING.encode_ordinary(text))


@given(prose)
def test_any_pieces_count_what_their_joined_text_counts(pieces: list[str]) -> None:
    """Settled after each piece, which is oftener than it ever is of itself."""
    count = TextCount(lambda: ENCODING)
    for n, piece in enumerate(pieces, 1):
        count.add(piece)
        assert count.total() == tokens_of("".join(pieces[:n]))


@given(prose, st.integers(1, 40))
def test_a_long_text_is_settled_on_its_way_and_counts_the_same(words: list[str], times: int) -> None:
    pieces = words * times
    assert counted(*pieces).total() == tokens_of("".join(pieces))


@given(st.lists(st.sampled_from([*"aZ9é。、, \n\t'", "你", "\u0301", "_", "  "]) | texts, min_size=2, max_size=12), texts)
def test_at_a_break_a_text_is_the_sum_of_its_halves(parts: list[str], more: str) -> None:
    text = "".join(parts) + "x" * SETTLE_EVERY  # long enough for breaks without spaces
    cut = last_break(text)
    assert tokens_of(text[:cut]) + tokens_of(text[cut:] + more) == tokens_of(text + more)


@given(st.sampled_from(["a", "=-", "你好", " ", "\n ", "ab", "กา"]), st.integers(LONGEST_TAIL, 3 * LONGEST_TAIL))
def test_a_run_without_a_break_counts_two_off_at_most_for_each_longest_tail(run: str, length: int) -> None:
    text = (run * length)[:length]
    pieces = [text[at : at + 7] for at in range(0, length, 7)]
    assert abs(counted(*pieces).total() - tokens_of(text)) <= 2 * (length // LONGEST_TAIL)


def test_what_is_settled_is_not_kept() -> None:
    count = counted(*["word "] * 1000, *["你好，"] * 1000, *["="] * 10_000)
    count.total()
    assert sum(map(len, count._pieces)) <= LONGEST_TAIL


@given(prose, prose, st.integers(1, 30))
def test_what_fits_is_as_long_as_it_may_be(before: list[str], after: list[str], room: int) -> None:
    """Never more than the room; at most one token less, or the next character takes several."""
    count, text = counted(*before), "".join(after)
    kept = count.total()
    fits = count.fitting(text, room)
    assert text.startswith(fits)
    count.add(fits)
    assert count.total() <= kept + room
    if fits != text:
        assert count.total() >= kept + room - max(1, tokens_of(text[len(fits)]))


def test_pieces_wait_for_the_encoding() -> None:
    loaded: list[Encoding] = []
    count = TextCount(lambda: loaded[0] if loaded else None)
    for _ in range(2 * SETTLE_EVERY):
        count.add("a b ")
    assert count.most == 4 * 4 * 2 * SETTLE_EVERY
    loaded.append(ENCODING)
    assert count.total() == tokens_of("a b " * 2 * SETTLE_EVERY)


@pytest.mark.parametrize("text", ["<|endoftext|>", "a<|fim_prefix|>b <|endofprompt|>"])
def test_special_tokens_in_a_text_are_text(text: str) -> None:
    assert counted(text).total() == tokens_of(text) > 1
    assert counted("x ").fitting(text, 2) != ""


@pytest.mark.parametrize(
    ("text", "cut"),
    [("", 0), ("word", 0), ("a b", 1), ("a  b", 1), ("a \n b", 1), ("  ", 0), ("\n ", 0), (" a", 0), ("a b c", 3)],
)
def test_a_space_after_a_word_is_a_break(text: str, cut: int) -> None:
    assert last_break(text) == cut
