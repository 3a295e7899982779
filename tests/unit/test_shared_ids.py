"""shared/ids.py: job ids and event ids (protocol 3)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BadCursor
from shared.ids import MAX_NUMBER, QUEUED, START, EventId, is_job_id, new_job_id

numbers = st.integers(0, MAX_NUMBER)
event_ids = st.builds(EventId, numbers, numbers)


def test_job_ids_are_well_formed_and_differ() -> None:
    ids = {new_job_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(map(is_job_id, ids))


@pytest.mark.parametrize(
    "text",
    ["", "job_", "job_" + "a" * 25, "job_" + "a" * 27, "job_" + "A" * 26, "job_" + "1" * 26, "JOB_" + "a" * 26,
     "job_" + "a" * 26 + "\n", " job_" + "a" * 26, "job_" + "a" * 25 + "*", "job_" + "a" * 25 + "é"],
)  # fmt: skip
def test_what_is_no_job_id(text: str) -> None:
    assert not is_job_id(text)


@given(event_ids)
def test_an_event_id_reads_back_as_itself(event_id: EventId) -> None:
    assert EventId.parse(str(event_id)) == event_id
    assert EventId.from_redis(str(event_id).encode()) == event_id


@given(event_ids, event_ids)
def test_order_is_attempt_first_then_seq(a: EventId, b: EventId) -> None:
    assert (a < b) == (a.attempt < b.attempt or (a.attempt == b.attempt and a.seq < b.seq))


@given(st.builds(EventId, numbers, st.integers(0, MAX_NUMBER - 1000)), st.integers(1, 1000))
def test_plus_n_is_n_times_next(event_id: EventId, n: int) -> None:
    assert event_id < event_id.next() <= event_id.plus(n)
    assert event_id.plus(n).attempt == event_id.attempt
    assert event_id.plus(n).seq - event_id.seq == n
    assert event_id.plus(1) == event_id.next()
    assert event_id.plus(0) == event_id


def test_the_first_ids() -> None:
    assert START < QUEUED < EventId(1, 0) < EventId(1, 9) < EventId(1, 10) < EventId(2, 0)
    assert str(QUEUED) == "0-1"


@pytest.mark.parametrize(
    "text",
    ["", "$", "-", "+", ">", "*", "0", "17", "1-", "-1", "1-*", "1--1", "-1-1", "1-+1", "01-1", "1-01", "00-0", "1 -1", " 1-1",
     "1-1 ", "1-1\n", "1-1-1", "1.0-1", "1e3-1", "0x1-1", "١-1", "²-1", "1_0-1", f"{MAX_NUMBER + 1}-0", f"0-{MAX_NUMBER + 1}",
     "9" * 17 + "-0", "1-" + "9" * 10_000],
)  # fmt: skip
def test_what_is_no_cursor(text: str) -> None:
    with pytest.raises(BadCursor) as caught:
        EventId.parse(text)
    assert caught.value.code == "bad_cursor"
    assert len(str(caught.value)) < 150, "a long cursor is not given back whole"


@given(st.text())
def test_whatever_else_is_sent_is_a_cursor_in_its_one_form_or_refused(text: str) -> None:
    try:
        event_id = EventId.parse(text)
    except BadCursor:
        return
    assert str(event_id) == text
