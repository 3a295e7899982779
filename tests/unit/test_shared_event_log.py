"""shared/event_log.py without Redis: entries, and what they tell."""

from shared.event_log import Entry, fold_of
from shared.events import Queued, Token
from shared.ids import EventId


def test_an_entry_knows_its_event() -> None:
    assert Entry(EventId(1, 1), {b"t": b"a", b"i": b"7"}).event == Token("a", (7,))


def test_entries_tell_one_state_and_more_of_them_add_to_it() -> None:
    first = [Entry(EventId(0, 1), {b"e": b'{"type":"queued","job_id":"j","model":"m","created_at":1.0}'})]
    assert isinstance(first[0].event, Queued)
    state = fold_of(first)
    assert (state.last_id, state.text) == (EventId(0, 1), "")
    fold_of([Entry(EventId(1, 1), {b"t": b"Hel"}), Entry(EventId(1, 2), {b"t": b"lo"})], state)
    assert (state.last_id, state.text) == (EventId(1, 2), "Hello")
