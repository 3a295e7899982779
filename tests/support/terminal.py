"""What a command writes, and what a terminal would show of it."""

import re
from io import StringIO

from rich.console import Console

from cli.output import Output


class Streams:
    """stdout and stderr, as one terminal or as two pipes."""

    def __init__(self, *, terminal: bool, width: int = 30) -> None:
        self.out_file = StringIO()
        self.err_file = self.out_file if terminal else StringIO()
        self.out = Console(file=self.out_file, force_terminal=terminal, width=width, height=8, color_system=None)
        self.err = Console(file=self.err_file, force_terminal=terminal, width=width, height=8, color_system=None)

    def output(self, *, as_json: bool = False) -> Output:
        return Output(as_json=as_json, out=self.out, err=self.err)

    @property
    def stdout(self) -> str:
        return self.out_file.getvalue()

    @property
    def stderr(self) -> str:
        return self.err_file.getvalue()

    def screen(self) -> list[str]:
        """The lines that a terminal of this size would show."""
        return play(self.stdout, self.out.width)


def play(output: str, width: int) -> list[str]:
    """As much of a terminal as is needed: newline, return, cursor up, erase; it wraps at its width."""
    lines, row, column = [""], 0, 0
    for code, up, character in re.findall(r"(\x1b\[\??(\d*)[A-Zhlm])|([^\x1b])", output):
        if code.endswith("A"):
            row -= int(up or 1)
        elif code.endswith("J"):
            lines[row:] = [lines[row][:column]]
        elif code.endswith("K"):
            lines[row] = ""
        elif character == "\r":
            column = 0
        elif character == "\n" or (character and column == width):
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        if character and character not in "\r\n":
            lines[row] = lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
            column += 1
    return [line.rstrip() for line in lines]
