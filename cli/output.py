"""Where a command's words go: what was asked for to stdout, notes and errors to stderr, and `--json` as one document.

plain      text for a person; colours and spinners only where one looks, the same words as plain lines in a pipe
--json     stdout is one JSON document at the end, or nothing where the command failed; stderr as ever (docs/decisions/0034)
"""

import json
import os
import re
import sys
from typing import Any

from rich.console import Console
from rich.markup import escape

# All but tab and newline: a model must not steer the terminal that shows its words.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class Output:
    """One command's stdout and stderr, and whether stdout is for a program."""

    def __init__(self, *, as_json: bool = False, out: Console | None = None, err: Console | None = None) -> None:
        self.as_json = as_json
        self.out = out or Console()
        self.err = err or Console(stderr=True)

    def document(self, value: Any) -> None:
        """The one JSON document of `--json`."""
        text = json.dumps(value, ensure_ascii=False, indent=2)
        self.write((harmless(text) if self.out.is_terminal else text) + "\n")

    def write(self, text: str) -> None:
        """Onto stdout, as it is and at once."""
        self.out.file.write(text)
        self.out.file.flush()

    def fail(self, message: str) -> None:
        """The one line of a command that came to nothing."""
        print_line(self.err, "[red]lastevent:[/]", message)


def forget_stdout() -> None:
    """stdout's reader has left: so that the interpreter's last flush is silent."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def print_line(console: Console, head: str, text: str, style: str | None = None) -> None:
    """`text` as one line, whatever it holds, behind `head`, which is markup."""
    line = harmless(" ".join(text.split()))
    console.print(f"{head} {escape(line)}".strip(), style=style, soft_wrap=True, highlight=False)


def harmless(text: str) -> str:
    """`text` without what would steer a terminal."""
    return _CONTROL.sub("\ufffd", text)


def counted(n: int, noun: str) -> str:
    """`1 token`, `2 tokens`."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
