"""Ids → text, token by token, whole characters only. No torch.

A token is no piece of text: it may be half a character, and whether it begins with a space can depend on the token before
it. So text is found by decoding a short window twice, without and with the new tokens, and taking the difference. The
window starts a few tokens back and moves on with each piece, so a token costs the same at the end of an answer as at its
start.
"""

from collections.abc import Callable, Sequence
from typing import Final

Decode = Callable[[Sequence[int]], str]
"""Ids → text, special tokens left out, nothing prettified: text(a + b) starts with text(a) where a ends a character."""

REPLACEMENT: Final = "�"
CONTEXT_IDS: Final = 8
"""How many ids of a prefix the first window starts with: more than a character has bytes, so it holds a whole one."""
MAX_HELD_IDS: Final = 6
"""Ids that may wait for their character's end. UTF-8 needs four bytes, so past this the bytes are no character at all."""


class Detokenizer:
    """The text of one answer, as its ids come."""

    def __init__(self, decode: Decode, prefix: Sequence[int] = ()) -> None:
        """`prefix`: the ids of the answer so far; their text is context and is not given again."""
        self._decode = decode
        self._window = list(prefix[-CONTEXT_IDS:])
        self._read = len(self._window)
        """Ids of the window whose text was given."""

    def push(self, token: int) -> str:
        """The text that is whole with this token; empty while a character is half."""
        self._window.append(token)
        before = self._decode(self._window[: self._read])
        text = self._decode(self._window)[len(before) :]
        waiting = len(self._window) - self._read
        if (not text or text.endswith(REPLACEMENT)) and waiting <= MAX_HELD_IDS:
            return ""
        # The window keeps the piece just given: its tokens are what the next one's leading space depends on.
        self._window = self._window[self._read :]
        self._read = len(self._window)
        return text
