"""Stop strings, found across the borders of pieces. No torch.

    pieces     "one E"  "N"  "D two"          stop "END"
    released   "one "   ""   "" and the end

Text that may be the start of a stop string is held until it is clear. The stop string itself is never released.
"""

from collections.abc import Sequence


class StopMatcher:
    """One answer's text on its way out. After a hit it must not be pushed to again."""

    def __init__(self, stops: Sequence[str], tail: str = "") -> None:
        """`tail`: the end of the text that left before; a stop string may have begun in it."""
        self._stops = tuple(stops)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self._tail = self._keep(tail)

    def push(self, piece: str) -> tuple[str, bool]:
        """What may leave now, and whether a stop string was hit: then it is the last of the text."""
        if not self._stops:
            return piece, False
        window = self._tail + self._held + piece
        left = len(self._tail)
        hit = self._first_hit(window, left)
        if hit is not None:
            self._held = ""
            return window[left : max(left, hit)], True
        clear = max(left, len(window) - self._start_of_a_stop(window))
        self._held = window[clear:]
        self._tail = self._keep(window[:clear])
        return window[left:clear], False

    def flush(self) -> str:
        """The text still held, once no more comes."""
        held, self._held = self._held, ""
        return held

    def _first_hit(self, window: str, left: int) -> int | None:
        """Where the stop string begins that ends first, past `left`: so it matters not where the pieces' borders are."""
        starts = [(window.find(stop, max(0, left - len(stop) + 1)), stop) for stop in self._stops]
        ends = [(start + len(stop), start) for start, stop in starts if start >= 0]
        return min(ends)[1] if ends else None

    def _keep(self, text: str) -> str:
        return text[-(self._longest - 1) :] if self._longest > 1 else ""

    def _start_of_a_stop(self, window: str) -> int:
        """How many characters at the window's end may begin a stop string; the longest such end."""
        return max(_overlap(window, stop) for stop in self._stops)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a start of `stop`, shorter than all of it."""
    at = text.find(stop[0], max(0, len(text) - len(stop) + 1))
    while at >= 0:
        if stop.startswith(text[at:]):
            return len(text) - at
        at = text.find(stop[0], at + 1)
    return 0
