"""The tail against the plainest one there could be: a list of pushes that is searched from its start."""

from hypothesis import given
from hypothesis import strategies as st

from shared.ids import EventId
from shared.push import Push
from web.tail import Tail

Step = tuple[int, int, bool]


@st.composite
def pushes(draw: st.DrawFn) -> list[Push]:
    """As a log's scripts publish them; some get lost, some come twice."""
    at, all_pushes = EventId(1, 0), []
    for n, claims in draw(st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=12)):
        to = EventId(at.attempt + 1, 0) if claims else at.plus(n)
        all_pushes.append(Push(at, to, n, False, b"x" * n))
        at = to
    heard = []
    for push in all_pushes:
        heard += [push] * draw(st.sampled_from([1, 1, 1, 1, 0, 2]))
    return heard


cursors = st.builds(EventId, st.integers(0, 8), st.integers(0, 20))


class NaiveTail:
    """The longest run without a hole that ends with the newest push."""

    def __init__(self) -> None:
        self.run: list[Push] = []

    def add(self, push: Push) -> bool:
        if self.run and push.after <= self.run[-1].after:
            return False
        if self.run and push.before != self.run[-1].after:
            self.run = []
        self.run.append(push)
        return True

    def since(self, cursor: EventId) -> Push | None:
        if not self.run or cursor >= self.run[-1].after:  # the reader may have more: the log was faster than the push
            return Push(cursor, cursor, 0, False, b"")
        places = [push.before for push in self.run]
        if cursor not in places:
            return None
        lacking = self.run[places.index(cursor) :]
        frames = b"".join(push.frames for push in lacking)
        return Push(cursor, lacking[-1].after, sum(push.n for push in lacking), lacking[-1].terminal, frames)


@given(pushes(), cursors)
def test_the_tail_is_the_naive_one(heard: list[Push], cursor: EventId) -> None:
    tail, naive = Tail("job", 1 << 20), NaiveTail()
    for push in heard:
        assert tail.add(push) == naive.add(push)
        for known in (cursor, push.before, push.after):
            assert tail.since(known) == naive.since(known)


@given(pushes(), st.integers(1, 12))
def test_a_small_tail_keeps_the_newest(heard: list[Push], limit: int) -> None:
    """Whoever fell behind its start has no place in it; whoever has one gets the same as from a tail without a limit."""
    tail, naive = Tail("job", limit), NaiveTail()
    for push in heard:
        tail.add(push)
        naive.add(push)
        for known in (push.before, push.after):
            small, whole = tail.since(known), naive.since(known)
            assert small == whole or (small is None and whole is not None)
            assert small is None or len(small.frames) <= limit or small in heard
