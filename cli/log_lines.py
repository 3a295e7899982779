"""The log of a whole stack in one terminal: each child's lines behind its name."""

import os
import sys
from collections.abc import Iterable
from typing import TextIO

_COLOURS = (36, 33, 35, 32, 34, 31)  # SGR foregrounds that read well on dark and on light
_RESET = "\x1b[0m"


class LogLines:
    """Writes `name │ line`, the names padded to one width and coloured where a person looks."""

    def __init__(self, names: Iterable[str], stream: TextIO | None = None) -> None:
        names = list(names)
        self._stream = stream if stream is not None else sys.stderr
        self._width = max(map(len, names), default=0)
        colourful = self._stream.isatty() and "NO_COLOR" not in os.environ  # https://no-color.org
        self._colour = {name: _COLOURS[i % len(_COLOURS)] for i, name in enumerate(names)} if colourful else {}
        self._deaf = False

    def __call__(self, name: str, line: str) -> None:
        if self._deaf:
            return
        head = f"{name:<{self._width}} │"
        if name in self._colour:
            head = f"\x1b[{self._colour[name]}m{head}{_RESET}"
        try:
            self._stream.write(f"{head} {line}\n")
            self._stream.flush()
        except OSError:
            # The reader of our log has gone (`2>&1 | head`, a closed terminal). That is no reason to end what others use.
            self._deaf = True
