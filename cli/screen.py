"""An answer as it stands on stdout while it grows, is replayed, or starts over."""

from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape

from cli.output import harmless


class Screen:
    """The answer as it stands on stdout. A terminal takes text back when an attempt starts over; a pipe cannot."""

    def __init__(self, out: Console, err: Console) -> None:
        self.out, self.err = out, err
        self.shown = ""
        self._in_line = False
        self._row = self._column = 0  # where the terminal's cursor is, counted from where the answer began

    def show(self, text: str, *, final: bool = False) -> None:
        """Makes `text` the answer. A text that is, so far, a beginning of what is shown is a replay: nothing changes yet."""
        if self.shown.startswith(text) and not (final and text != self.shown):
            return
        if not text.startswith(self.shown):
            self._take_back()
        self._write(text[len(self.shown) :])
        self.shown = text

    def note(self, message: str) -> None:
        """A dim line on stderr."""
        if self.out.is_terminal:
            self.close()
        self.err.print(escape(message), style="dim", soft_wrap=True, highlight=False)
        if self.out.is_terminal and self.err.is_terminal:
            self._row += 1

    def close(self) -> None:
        """Ends the last line, so that the prompt of the shell stands on one of its own."""
        if self._in_line:
            self._write("\n")

    def _take_back(self) -> None:
        self.shown = ""
        if self.out.is_terminal and self._row < self.out.height:
            up = f"\x1b[{self._row}A" if self._row else ""
            self.out.file.write(f"\r{up}\x1b[J")
            self._in_line = False
        else:
            self.close()
            self.note("the answer starts over; what stands above is discarded")
        self._row = self._column = 0

    def _write(self, text: str) -> None:
        if self.out.is_terminal:
            text = harmless(text)
            for character in text:
                self._advance(character)
        self.out.file.write(text)
        self.out.file.flush()
        self._in_line = not text.endswith("\n")

    def _advance(self, character: str) -> None:
        width = 8 - self._column % 8 if character == "\t" else cell_len(character)
        if character == "\n":
            self._row, self._column = self._row + 1, 0
        elif self._column + width > self.out.width:
            self._row, self._column = self._row + 1, width
        else:
            self._column += width
