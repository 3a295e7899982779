"""Logs, as protocol 3 allows them: several attempts, numbers that skip, resets, every kind of event."""

from hypothesis import strategies as st

from shared.event_log import Entry
from shared.events import (
    AnyEvent,
    Cancelled,
    Content,
    Done,
    Error,
    Queued,
    Reasoning,
    Refusal,
    Started,
    Terminal,
    Timing,
    Token,
    ToolCall,
    Usage,
    to_data,
    to_fields,
)
from shared.ids import MAX_NUMBER, QUEUED, EventId
from web.sse import Frame

numbers = st.integers(0, MAX_NUMBER)
event_ids = st.builds(EventId, numbers, numbers)

texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
"""Any Unicode but surrogates, which UTF-8 cannot carry: quotes, controls, line ends, astral planes."""

tokens = st.builds(Token, texts, st.lists(numbers, max_size=3).map(tuple))
tool_calls = st.builds(ToolCall, st.integers(0, 2), st.none() | texts, st.none() | texts, st.just("") | texts)
contents: st.SearchStrategy[Content] = st.one_of(
    tokens, tokens, st.builds(Reasoning, texts), st.builds(Refusal, texts), tool_calls
)
seconds = st.none() | st.floats(0, 1e6)
usages = st.builds(Usage, numbers, numbers, st.booleans())
timings = st.builds(Timing, seconds, seconds, seconds, seconds, seconds, seconds)
terminals: st.SearchStrategy[Terminal] = st.one_of(
    st.builds(Done, st.sampled_from(["stop", "length", "content_filter", "tool_calls", "budget"]), usages, timings),
    st.builds(Error, st.sampled_from(["timeout", "internal"]), texts, st.booleans(), st.booleans(), usages, timings),
    st.builds(Cancelled, st.just("user"), st.booleans(), usages, timings),
)
queued = st.builds(Queued, texts, texts, st.floats(0, 1e10))
started = st.builds(
    Started,
    numbers,
    texts,
    texts,
    st.sampled_from(["first", "retry", "fallback", "handover", "takeover"]),
    st.booleans(),
    texts,
)
events: st.SearchStrategy[AnyEvent] = st.one_of(contents, terminals, queued, started)

Log = list[tuple[EventId, AnyEvent]]


@st.composite
def logs(draw: st.DrawFn, *, most_attempts: int = 4) -> Log:
    """A whole log, from `queued` to its terminal event."""
    log: Log = [(QUEUED, draw(st.builds(Queued, st.just("job_x"), st.just("openai/any"), st.just(1.0))))]
    attempt = 0
    for i in range(draw(st.integers(1, most_attempts))):
        attempt += draw(st.sampled_from([1, 1, 1, 2, 1001]))
        reset = i > 0 and draw(st.booleans())
        opening = Started(attempt, "openai/any", "w", "takeover" if i else "first", reset, str(log[-1][0]))
        log.append((EventId(attempt, 0), opening))
        for content in draw(st.lists(contents, max_size=8)):
            log.append((log[-1][0].next(), content))
    return [*log, (log[-1][0].next(), draw(terminals))]


def entries_of(log: Log) -> list[Entry]:
    """As Redis would give them back."""
    entries = []
    for event_id, event in log:
        flat = to_fields(event)
        entries.append(Entry(event_id, dict(zip(flat[::2], flat[1::2], strict=True))))
    return entries


def frames_of(log: Log) -> list[Frame]:
    return [Frame(event_id, to_data(event)) for event_id, event in log]
