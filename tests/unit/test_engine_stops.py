"""Stop strings are found across the borders of pieces, and nothing of them leaves."""

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.stops import StopMatcher

LETTERS = st.text(alphabet="abc", max_size=30)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=4), min_size=1, max_size=4)


def run(stops: list[str], pieces: list[str], tail: str = "") -> tuple[list[str], bool]:
    """What left, piece by piece, the flush at the end included; and whether a stop string ended it."""
    matcher, left = StopMatcher(stops, tail), []
    for piece in pieces:
        released, hit = matcher.push(piece)
        left.append(released)
        if hit:
            return left, True
    return [*left, matcher.flush()], False


def expected(stops: list[str], text: str) -> tuple[str, bool]:
    """The text before the stop string that ends first, and of those the longest."""
    hits = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return (text[: min(hits)[1]], True) if hits else (text, False)


@given(STOPS, LETTERS, st.data())
def test_where_the_borders_are_does_not_matter(stops: list[str], text: str, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    left, hit = run(stops, pieces)
    assert ("".join(left), hit) == expected(stops, text)


@given(STOPS, LETTERS, st.data())
def test_a_stop_string_may_begin_in_the_text_that_left_before(stops: list[str], text: str, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(text)))
    if expected(stops, text[:cut])[1]:
        return  # that answer had ended
    left, hit = run(stops, [text[cut:]], tail=text[:cut])
    wanted, ends = expected(stops, text)
    assert ("".join(left), hit) == (wanted[cut:], ends)


def test_what_may_be_a_start_is_held_and_let_go() -> None:
    assert run(["END"], ["one E", "N", "C two"]) == (["one ", "", "ENC two", ""], False)


def test_a_held_start_leaves_at_the_end() -> None:
    assert run(["END"], ["one EN"]) == (["one ", "EN"], False)


def test_the_stop_string_does_not_leave() -> None:
    assert run(["END"], ["one E", "N", "D two"]) == (["one ", "", ""], True)


def test_without_stop_strings_nothing_is_held() -> None:
    assert run([], ["a", "b"]) == (["a", "b", ""], False)
