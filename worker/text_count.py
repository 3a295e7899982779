"""The tokens of a text that comes in pieces: right for the joined text, at a constant cost a piece.

    settled: counted once, only its number is kept      tail: the newest characters, whose tokens may still change
    "The quick brown fox jumps over the la"             "zy"

Counting pieces by themselves over-counts, and counting the whole text with every piece is quadratic. But an encoding cuts a
text into words first and makes tokens within them, so what stands before a sure break between two words never changes. Long
runs without one are cut where they stand: `LONGEST_TAIL` says what that costs. No I/O.
"""

import re
from collections.abc import Callable
from copy import copy
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from tiktoken import Encoding

SETTLE_EVERY: Final = 512
"""Characters between two settlings: some 130 tokens, 0.1 ms."""

LONGEST_TAIL: Final = 2048
"""Characters. A run without a sure break that is longer is settled whole, and counts up to two tokens off for each time."""

MOST_A_CHARACTER: Final = 4
"""Tokens: a character has four bytes at most, and no token is shorter than a byte."""

_BREAK: Final = re.compile(
    # cl100k_base never puts a letter or digit and what follows here into one word, whatever comes after.
    r"(?<=[^\W_])(?=[\x00-/:-@\[-`{-\x7f\u3000-\u3002\u3008-\u3011\uff01-\uff0f\uff1a-\uff20\u2010-\u2027])"
    r"|(?<=[A-Za-z])(?=[0-9])|(?<=[0-9])(?=[A-Za-z])"
)


class TextCount:
    """Feed it pieces. `encoding` gives None while it is still being loaded; the pieces wait for it then."""

    __slots__ = ("_encoding", "_pieces", "_settle_at", "_settled", "_unsettled")

    def __init__(self, encoding: "Callable[[], Encoding | None]") -> None:
        self._encoding = encoding
        self._settled = 0
        """Tokens."""
        self._pieces: list[str] = []
        """The tail."""
        self._unsettled = 0
        """Characters of the tail."""
        self._settle_at = SETTLE_EVERY

    def fork(self) -> Self:
        """The same count, with nothing counted again; what is added to one of the two is not added to the other."""
        other = copy(self)
        other._pieces = self._pieces.copy()
        return other

    def add(self, text: str) -> None:
        if not text:
            return
        self._pieces.append(text)
        self._unsettled += len(text)
        if self._unsettled >= self._settle_at and (encoding := self._encoding()) is not None:
            self._settle(encoding)

    @property
    def most(self) -> int:
        """So many tokens or fewer; costs nothing to know."""
        return self._settled + MOST_A_CHARACTER * self._unsettled

    def total(self) -> int:
        """Tokens of all of it. Needs the encoding, if there is any text."""
        if not self._pieces:
            return self._settled
        encoding = self._loaded()
        tail = self._settle(encoding)
        return self._settled + len(encoding.encode_ordinary(tail))

    def fitting(self, text: str, room: int) -> str:
        """The start of `text` that adds no more than `room` tokens: one less at most, or what its next character takes."""
        encoding = self._loaded()
        tail = self._settle(encoding)
        allowed = len(encoding.encode_ordinary(tail)) + room
        ids = encoding.encode_ordinary(tail + text)
        if len(ids) <= allowed:
            return text
        whole = encoding.decode_bytes(ids[:allowed]).decode("utf-8", "ignore")  # no half character at its end
        fits = max(0, len(whole) - len(tail))
        while fits and len(encoding.encode_ordinary(tail + text[:fits])) > allowed:
            fits -= 1
        return text[:fits]

    def _settle(self, encoding: "Encoding") -> str:
        """Settles what can be settled; returns the tail."""
        text = "".join(self._pieces)
        cut = last_break(text)
        if len(text) - cut > LONGEST_TAIL:
            cut = len(text)
        if cut:
            self._settled += len(encoding.encode_ordinary(text[:cut]))
            text = text[cut:]
        self._pieces = [text] if text else []
        self._unsettled = len(text)
        self._settle_at = len(text) + SETTLE_EVERY
        return text

    def _loaded(self) -> "Encoding":
        encoding = self._encoding()
        assert encoding is not None, "whoever asks for tokens has waited for the encoding"
        return encoding


def last_break(text: str) -> int:
    """The last place where the text may be cut without a change to its tokens, whatever follows it; 0 where none is sure."""
    cut = text.rfind(" ")
    while cut > 0 and text[cut - 1].isspace():  # within white space nothing is sure
        cut = text.rfind(" ", 0, cut)
    cut = max(cut, 0)
    if len(text) - cut > SETTLE_EVERY // 2:  # a text without spaces
        for found in _BREAK.finditer(text, cut):
            cut = found.start()
    return cut
