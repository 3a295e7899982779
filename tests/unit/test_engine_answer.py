"""Ids → `Token` deltas: text and ids leave together, and any cut + continuation ≡ the undisturbed answer."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from shared.events import Token
from worker.engine.answer import Answer

WORDS = [" one", " two", "E", "N", "D", " END", "É"[:1], " tEN"]
HALVES = len(WORDS)
"""Two more ids: the two bytes of an é, each half a character."""


def decode(ids: Sequence[int]) -> str:
    raw = b"".join(WORDS[i].encode() if i < HALVES else "é".encode()[i - HALVES : i - HALVES + 1] for i in ids)
    return raw.decode("utf-8", errors="replace")


IDS = st.lists(st.one_of(st.sampled_from([(i,) for i in range(HALVES)]), st.just((HALVES, HALVES + 1))), max_size=20).map(
    lambda groups: [i for group in groups for i in group]
)


def answered(answer: Answer, ids: Sequence[int], at_once: int = 1) -> list[Token]:
    """All deltas of an answer whose engine makes these ids, until a stop string or their end."""
    deltas = answer.opening()
    for start in range(0, len(ids), at_once):
        if answer.stopped:
            break
        deltas += answer.push(ids[start : start + at_once])
    return deltas + answer.flush()


def text_of(deltas: list[Token]) -> str:
    return "".join(delta.text for delta in deltas)


def ids_of(deltas: list[Token]) -> list[int]:
    return [i for delta in deltas for i in delta.ids]


@given(IDS, st.integers(1, 5))
def test_text_and_ids_leave_whole_and_together(ids: list[int], at_once: int) -> None:
    deltas = answered(Answer(decode), ids, at_once)
    assert ids_of(deltas) == ids
    assert all(delta.text == decode(delta.ids) for delta in deltas)


@given(IDS)
def test_at_every_moment_the_text_that_left_is_that_of_the_ids_that_left(ids: list[int]) -> None:
    answer, left = Answer(decode, ["END"]), list[Token]()
    for i in ids:
        left += answer.push([i])
        if answer.stopped:
            break
        assert text_of(left) == decode(ids_of(left))


@given(IDS, st.sampled_from([(), ("END",), ("END", " t"), ("two one",)]), st.data())
def test_any_cut_and_its_continuation_are_the_undisturbed_answer(
    ids: list[int], stops: tuple[str, ...], data: st.DataObject
) -> None:
    whole = answered(Answer(decode, stops), ids)
    kept = whole[: data.draw(st.integers(0, len(whole)))]
    rest = answered(Answer(decode, stops, text_of(kept), ids_of(kept)), ids[len(ids_of(kept)) :])
    assert text_of(kept + rest) == text_of(whole)


@given(IDS, st.sampled_from(["END", "one", "D t", "é t"]))
def test_what_leaves_is_the_text_before_the_stop_string(ids: list[int], stop: str) -> None:
    assert text_of(answered(Answer(decode, [stop]), ids)) == decode(ids).partition(stop)[0]


def test_a_stop_string_ends_it_and_cuts_its_token() -> None:
    answer = Answer(decode, [" tE"])
    assert answer.push([0, 7, 1]) == [Token(" one", (0,))]
    assert answer.stopped
    answer = Answer(decode, ["EN"])
    assert answer.push([7]) == [Token(" t", (7,))]
    assert answer.stopped


def test_a_token_whose_end_may_begin_a_stop_string_waits_whole() -> None:
    answer = Answer(decode, ["END"])
    assert answer.push([0, 7]) == [Token(" one", (0,))]
    assert answer.push([0]) == [Token(" tEN", (7,)), Token(" one", (0,))]


def test_half_a_character_at_the_end_stays_behind() -> None:
    answer = Answer(decode)
    assert answer.push([0, HALVES]) == [Token(" one", (0,))]
    assert answer.flush() == []


def test_what_the_prefix_owes_comes_first_and_may_be_the_end() -> None:
    owing = Answer(decode, ["ENC"], prefix_text=" t", prefix_ids=[7])
    assert owing.opening() == []
    assert owing.push([0]) == [Token("EN"), Token(" one", (0,))]
    over = Answer(decode, ["EN"], prefix_text=" t", prefix_ids=[7])
    assert over.stopped
    assert over.opening() == []
