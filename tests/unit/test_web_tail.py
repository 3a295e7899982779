"""web/tail.py by example; tests/properties/test_tail.py compares it with the plainest one there could be."""

from shared.ids import EventId
from shared.push import Push
from web.tail import Tail


def push(before: int, after: int, *, terminal: bool = False, size: int = 1) -> Push:
    return Push(EventId(1, before), EventId(1, after), after - before, terminal, b"x" * size)


def tail_of(*pushes: Push, limit: int = 1000) -> Tail:
    tail = Tail("j", limit)
    for one in pushes:
        assert tail.add(one)
    return tail


def test_a_reader_gets_what_it_lacks_as_one_push() -> None:
    pushes = [push(0, 1), push(1, 3), push(3, 4, terminal=True)]
    tail = tail_of(*pushes)
    assert tail.since(EventId(1, 0)) == Push(EventId(1, 0), EventId(1, 4), 4, True, b"xxx")
    assert tail.since(EventId(1, 3)) is pushes[2]


def test_one_that_has_everything_lacks_nothing() -> None:
    """Or more than that: it read the log, which was ahead of the pushes."""
    tail = tail_of(push(0, 1))
    for place in (EventId(1, 1), EventId(1, 5)):
        lacking = tail.since(place)
        assert lacking is not None
        assert (lacking.n, lacking.frames) == (0, b"")


def test_a_place_inside_a_push_or_before_the_tail_is_none() -> None:
    tail = tail_of(push(1, 3), push(3, 4))
    assert tail.since(EventId(1, 2)) is None
    assert tail.since(EventId(1, 0)) is None


def test_an_empty_tail_has_nothing_to_give() -> None:
    tail = Tail("j", 1000)
    lacking = tail.since(EventId(7, 7))
    assert lacking is not None
    assert lacking.n == 0
    assert tail.last is None


def test_it_tells_what_no_push_has_brought() -> None:
    tail = tail_of(push(0, 2))
    assert not tail.lacks(EventId(1, 2))
    assert tail.lacks(EventId(1, 3))
    assert Tail("j", 1000).lacks(EventId(0, 1))


def test_what_comes_twice_is_known() -> None:
    tail = tail_of(push(0, 2))
    assert not tail.add(push(0, 2))
    assert not tail.add(push(0, 1))


def test_after_a_hole_it_begins_anew() -> None:
    tail = tail_of(push(0, 1), push(5, 6))
    assert tail.since(EventId(1, 0)) is None
    assert tail.since(EventId(1, 5)) == push(5, 6)


def test_its_size_is_bounded_and_the_newest_stays() -> None:
    tail = tail_of(push(0, 1, size=60), push(1, 2, size=60), push(2, 3, size=500), limit=100)
    assert tail.since(EventId(1, 1)) is None
    assert tail.since(EventId(1, 2)) == push(2, 3, size=500)


def test_it_knows_its_end_until_it_forgets() -> None:
    tail = tail_of(push(0, 1), push(1, 2, terminal=True))
    assert tail.ended
    tail.forget()
    assert (tail.ended, tail.last) == (False, None)
