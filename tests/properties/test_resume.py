"""Any cut + resume ≡ the uninterrupted stream: what the whole project promises (protocol P1)."""

from hypothesis import given
from hypothesis import strategies as st

from tests.properties.model import Reader, after, held_by_fold, read
from tests.properties.strategies import Log, frames_of, logs
from web.sse import merged

limits = st.integers(60, 400)


@given(logs(), limits)
def test_an_uninterrupted_reader_holds_what_the_snapshot_shows(log: Log, limit: int) -> None:
    """Replayed merged or not: text, tool calls, resets and the end agree with the fold (protocol 2.2)."""
    expected = held_by_fold(log)
    assert read(frames_of(log)) == expected
    assert read(merged(frames_of(log), limit)) == expected


@given(logs(), st.data())
def test_any_cut_and_resume_is_the_uninterrupted_stream(log: Log, data: st.DataObject) -> None:
    """Cut as often as you like, each time after any frame, live or in a merged replay: the reader ends with the same."""
    frames = frames_of(log)
    reader = Reader()
    while reader.terminal is None:
        rest = after(frames, reader.cursor)
        live_from = data.draw(st.integers(0, len(rest)), label="replayed, then live")
        connection = [*merged(rest[:live_from], data.draw(limits)), *rest[live_from:]]
        for frame in connection[: data.draw(st.integers(1, len(connection)), label="cut after")]:
            reader.take(frame)
    assert reader.held == held_by_fold(log)


@given(logs(), st.data())
def test_any_entry_is_a_cursor(log: Log, data: st.DataObject) -> None:
    """Protocol 3: "a cursor inside a merged frame is an ordinary entry id: the rest follows"."""
    frames = frames_of(log)
    cut = data.draw(st.integers(0, len(frames)))
    reader = Reader()
    for frame in frames[:cut]:
        reader.take(frame)
    for frame in merged(after(frames, reader.cursor), data.draw(limits)):
        reader.take(frame)
    assert reader.held == held_by_fold(log)


@given(logs(), st.data())
def test_a_snapshot_and_the_rest_is_the_whole(log: Log, data: st.DataObject) -> None:
    """A page reloads: the Job up to its `last_event_id`, then the stream from there."""
    frames = frames_of(log)
    cut = data.draw(st.integers(1, len(log)))
    snapshot = held_by_fold(log[:cut])
    reader = Reader()
    reader.cursor, reader.calls = snapshot["cursor"], snapshot["calls"]
    reader.text, reader.reasoning, reader.refusal = snapshot["text"], snapshot["reasoning"], snapshot["refusal"]
    reader.terminal = snapshot["terminal"]
    for frame in after(frames, reader.cursor):
        reader.take(frame)
    assert reader.held == held_by_fold(log)
