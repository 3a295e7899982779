"""What the demo shows: the answer as it streams, what happens to it in between, and the table at the end.

On a terminal with colours and a spinner while nothing comes; in a pipe the same as plain lines.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from rich.console import Console
from rich.markup import escape
from rich.status import Status
from rich.table import Table

from cli.output import forget_stdout

SIGN_OF_LIFE_S = 5.0
"""A pipe shows no spinner: it gets a line so often while something is waited for."""

QUIET_S = 1.0
"""A stream that is silent for so long gets its spinner back."""


class Terminal(Console):
    """The one that the demo writes to."""

    def on_broken_pipe(self) -> None:
        """Falls silent where rich would exit: the demo still has processes to stop."""
        self.quiet = True
        forget_stdout()


class DemoView:
    """Writes to one console, and knows whether its cursor stands in the middle of a line."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._midline = False
        self._status: Status | None = None
        self._awaited: str | None = None
        self._timer: asyncio.TimerHandle | None = None

    def note(self, sign: str, message: str, style: str = "cyan") -> None:
        """One line about what happens."""
        self.calm()
        self._line(f"[{style}]{sign} {escape(message)}[/]")

    def text(self, piece: str) -> None:
        """A piece of the answer, as it comes. What is awaited may still be: the last pieces of a dead worker come after it."""
        awaited = self._awaited
        self.calm()
        self._console.print(escape(piece), end="", soft_wrap=True)
        self._midline = not piece.endswith("\n")
        if awaited is not None and self._console.is_terminal:
            self._timer = asyncio.get_running_loop().call_later(QUIET_S, self.waiting, awaited)
            self._awaited = awaited

    def waiting(self, message: str) -> None:
        """Something takes its time, until the next `note`."""
        self.calm()
        self._awaited = message
        if self._console.is_terminal:
            self._end_line()
            self._status = self._console.status(f"[dim]{escape(message)}[/]")
            self._status.start()
        else:
            self._line(f"… {escape(message)}")

    def calm(self) -> None:
        """Nothing is awaited any more."""
        self._awaited = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._status is not None:
            self._status.stop()
            self._status = None

    @asynccontextmanager
    async def progress(self, message: str) -> AsyncIterator[None]:
        """Shows `message` and, so long as the block runs, how long it has been."""
        started = time.monotonic()
        self.note("…", message, "dim")
        ticking = asyncio.create_task(self._tick(started))
        try:
            yield
        finally:
            ticking.cancel()
            with suppress(asyncio.CancelledError):
                await ticking
            self.calm()
        self.note("✓", f"{time.monotonic() - started:.1f} s", "green")

    def table(self, title: str, rows: dict[str, str], good: bool) -> None:
        self.calm()
        self._end_line()
        table = Table(title=title, title_justify="left", show_header=False, border_style="green" if good else "red")
        for name, value in rows.items():
            table.add_row(name, value)
        self._console.print()
        self._console.print(table)

    def log(self, lines: list[str]) -> None:
        """The stack's last log lines, for one who has to find out what went wrong."""
        for line in lines:
            self.note(" ", line, "dim")

    async def _tick(self, started: float) -> None:
        if self._console.is_terminal:
            self._status = self._console.status("")
            self._status.start()
        while True:
            await asyncio.sleep(0.5 if self._status else SIGN_OF_LIFE_S)
            passed = f"{time.monotonic() - started:.0f} s"
            if self._status is not None:
                self._status.update(f"[dim]{passed}[/]")
            else:
                self._console.print(f"  … {passed}")

    def _line(self, markup: str) -> None:
        self._end_line()
        self._console.print(markup, soft_wrap=True)

    def _end_line(self) -> None:
        if self._midline:
            self._console.print()
            self._midline = False
