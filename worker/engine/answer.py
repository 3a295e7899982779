"""One answer on its way from ids to the log: text made, stop strings found, ids kept beside their text. No torch.

A `Token` carries the ids behind its text, so that a later attempt can go on from them. Text and ids leave together and
whole: where part of a token's text must wait, because it may begin a stop string, the token waits. So what left is always
exactly the text of the ids that left, but for the one token that a stop string cuts through, at the very end.
"""

from collections import deque
from collections.abc import Sequence

from shared.events import Token
from worker.engine.detokenizer import Decode, Detokenizer
from worker.engine.stops import StopMatcher


class Answer:
    """Feed it ids as they come; it gives the deltas that may leave."""

    def __init__(self, decode: Decode, stops: Sequence[str] = (), prefix_text: str = "", prefix_ids: Sequence[int] = ()):
        self._detokenizer = Detokenizer(decode, prefix_ids)
        self._matcher = StopMatcher(stops, prefix_text)
        self._ids: list[int] = []
        """Ids whose text is not whole yet."""
        self._pieces: deque[tuple[str, tuple[int, ...]]] = deque()
        """Whole text that waits for the matcher, with its ids."""
        self._clear = 0
        """Characters of `_pieces` that the matcher has let go."""
        self.stopped = False
        """A stop string was hit: nothing more may be fed."""
        # An attempt that died between the token which a stop string cut and its end left text behind in that token.
        rest = decode(prefix_ids)[len(prefix_text) :] if prefix_ids else ""
        self._owed = self._take(rest, ()) if rest else []

    def opening(self) -> list[Token]:
        """What the prefix' ids still owe beyond its text. Usually nothing."""
        owed, self._owed = self._owed, []
        return owed

    def push(self, ids: Sequence[int]) -> list[Token]:
        """The deltas that may leave once these ids are known: one a piece of text. Stops at a stop string."""
        deltas: list[Token] = []
        for token in ids:
            self._ids.append(token)
            text = self._detokenizer.push(token)
            if text:
                piece, self._ids = tuple(self._ids), []
                deltas += self._take(text, piece)
            if self.stopped:
                break
        return deltas

    def flush(self) -> list[Token]:
        """The text that was held, at the end of the ids. Half a character stays behind for good."""
        self._clear += len(self._matcher.flush())
        return self._release()

    def _take(self, text: str, ids: tuple[int, ...]) -> list[Token]:
        self._pieces.append((text, ids))
        cleared, self.stopped = self._matcher.push(text)
        self._clear += len(cleared)
        deltas = self._release()
        if self.stopped:
            if self._clear:
                text, ids = self._pieces[0]
                deltas.append(Token(text[: self._clear], ids))
            self._pieces.clear()
            self._clear = 0
        return deltas

    def _release(self) -> list[Token]:
        deltas = []
        while self._pieces and len(self._pieces[0][0]) <= self._clear:
            text, ids = self._pieces.popleft()
            self._clear -= len(text)
            deltas.append(Token(text, ids))
        return deltas
