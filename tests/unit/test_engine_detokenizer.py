"""Ids → text: whole characters only, at once, and together exactly what decoding all ids gives."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.engine.detokenizer import MAX_HELD_IDS, REPLACEMENT, Detokenizer


def decode_bytes(ids: Sequence[int]) -> str:
    """As byte-level BPE at its worst: a token a byte."""
    return bytes(ids).decode("utf-8", errors="replace")


PIECES = ["▁the", "▁a", "b", "c", "▁", "é", "▁日本", "語"]


def decode_sentencepiece(ids: Sequence[int]) -> str:
    """As SentencePiece: a space belongs to the word after it, and the first one of a text is dropped."""
    return "".join(PIECES[i] for i in ids).replace("▁", " ").removeprefix(" ")


def pieces_of(detokenizer: Detokenizer, ids: Sequence[int]) -> list[str]:
    return [detokenizer.push(token) for token in ids]


@given(st.text(alphabet=st.characters(exclude_characters=REPLACEMENT, exclude_categories=["Cs"])))
def test_bytes_become_the_text_and_no_half_character_leaves(text: str) -> None:
    pieces = pieces_of(Detokenizer(decode_bytes), text.encode())
    assert "".join(pieces) == text
    assert not any(REPLACEMENT in piece for piece in pieces)
    assert [piece for piece in pieces if piece] == list(text), "each character leaves with its last byte"


@given(st.lists(st.integers(0, len(PIECES) - 1)))
def test_leading_spaces_are_those_of_the_whole_text(ids: list[int]) -> None:
    assert "".join(pieces_of(Detokenizer(decode_sentencepiece), ids)) == decode_sentencepiece(ids)


@given(st.lists(st.integers(0, len(PIECES) - 1), min_size=1), st.data())
def test_a_prefix_is_context_and_not_said_again(ids: list[int], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(ids)))
    rest = pieces_of(Detokenizer(decode_sentencepiece, ids[:cut]), ids[cut:])
    assert decode_sentencepiece(ids[:cut]) + "".join(rest) == decode_sentencepiece(ids)


def test_text_without_spaces_is_not_held_back() -> None:
    assert pieces_of(Detokenizer(decode_bytes), b"abc") == ["a", "b", "c"]


def test_bytes_that_never_become_a_character_leave_in_the_end() -> None:
    detokenizer = Detokenizer(decode_bytes)
    pieces = pieces_of(detokenizer, [0xFF] * (MAX_HELD_IDS + 1))
    assert pieces[-1] == REPLACEMENT * (MAX_HELD_IDS + 1)
    assert detokenizer.push(ord("a")) == "a"


@pytest.mark.parametrize("length", [200, 2_000])
def test_a_token_costs_the_same_at_the_end_of_a_long_answer(length: int) -> None:
    longest = 0

    def decode(ids: Sequence[int]) -> str:
        nonlocal longest
        longest = max(longest, len(ids))
        return decode_bytes(ids)

    pieces_of(Detokenizer(decode), b"x" * length)
    assert longest <= 2 * MAX_HELD_IDS
