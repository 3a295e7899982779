"""A job followed in the terminal to its end: what `ask` and `watch` show on the way, and how they conclude.

The answer goes to stdout and nothing else does; notes, the closing figures and errors go to stderr.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from rich.markup import escape
from rich.status import Status

from cli.api import Api, ApiError
from cli.options import DEFAULT_URL, URL_VARIABLE
from cli.output import Output, counted, print_line
from cli.reader import JobReader, StreamLost, StreamRefused
from cli.screen import Screen
from cli.signals import INTERRUPTED

EXIT_CODES: Final = {"done": 0, "failed": 1, "cancelled": INTERRUPTED}
"""By the job's final status."""

STATUS_OF: Final = {"done": "done", "error": "failed", "cancelled": "cancelled"}
"""The status that a terminal event leaves."""

WAITING_FOR: Final = {
    "queued": "waiting for a worker",
    "started": "waiting for the first token",
    "reasoning": "thinking",
}
"""What the line under the prompt says after an event of this type, until there is text."""


class Follow:
    """One job, its reader, and what is seen of both."""

    def __init__(self, api: Api, output: Output) -> None:
        self._api = api
        self._output = output
        self._screen = Screen(output.out, output.err)
        self._waiting = Status("", console=output.err)

    @contextmanager
    def shown(self, doing: str) -> Iterator[None]:
        """A spinner, where a person looks, until there is something to read; the last line is ended whatever happens."""
        self._waiting.update(doing)
        if self._output.err.is_terminal:
            self._waiting.start()
        try:
            yield
        finally:
            self._waiting.stop()
            self._screen.close()

    def note(self, message: str) -> None:
        """A dim line on stderr."""
        self._waiting.stop()
        self._screen.note(message)

    async def to_the_end(self, reader: JobReader, job_id: str) -> int:
        """Shows the job until it has ended, or with `--json` prints it then. Returns the exit code.

        Raises:
            ApiError: the stream cannot be read (any more).
        """
        began = reader.cursor
        try:
            await self._read(reader)
        except StreamRefused as refused:
            raise ApiError(str(refused)) from None
        except StreamLost as lost:
            back = come_back(self._api.url, job_id, reader.cursor)
            raise ApiError(f"{lost}; the job may go on without readers, come back with: {back}") from None
        self._waiting.stop()
        # A reader that began in the middle did not see all that the closing figures are about.
        job = await self._api.job(job_id) if self._output.as_json or began or reader.terminal is None else None
        if self._output.as_json:
            self._output.document(job)
        else:
            self._screen.show(_whole_answer(reader), final=True)
            self._screen.close()
        return self._conclude(reader, job or _as_job(reader))

    async def _read(self, reader: JobReader) -> None:
        before = ""
        async for frame in reader:
            kind = frame["type"]
            if kind == "dropped" and before != "dropped":  # one note for a whole row of failures
                self.note(f"connection lost, resuming from {reader.cursor or 'the start'}")
            elif kind == "started" and frame["reason"] != "first":
                self.note(f"attempt {frame['attempt']}: {frame['reason']}")
            elif kind in WAITING_FOR:
                self._waiting.update(WAITING_FOR[kind])
            if not self._output.as_json:
                self._show(reader.text + reader.refusal)
            before = kind

    def _show(self, answer: str) -> None:
        if answer:
            self._waiting.stop()
        self._screen.show(answer)

    def _conclude(self, reader: JobReader, job: dict[str, Any]) -> int:
        """The closing lines."""
        error = job["error"]
        if error:
            kept = "; what came before it is kept" if error.get("partial") or job.get("text") else ""
            print_line(self._output.err, f"[red]error/{escape(error['code'])}:[/]", error["message"] + kept)
        print_line(self._output.err, "", _figures(reader, job), style="dim")
        return EXIT_CODES[job["status"]]


def come_back(url: str, job_id: str, cursor: str | None) -> str:
    """The command that reads on from here."""
    elsewhere = url != os.environ.get(URL_VARIABLE, DEFAULT_URL).rstrip("/")
    return f"lastevent watch {job_id}{f' --from {cursor}' if cursor else ''}{f' --url {url}' if elsewhere else ''}"


def _as_job(reader: JobReader) -> dict[str, Any]:
    """What the closing lines need of the Job, as the reader saw it."""
    end = reader.terminal
    assert end is not None, "else the Job was asked for"
    error = end if end["type"] == "error" else None
    return {
        "status": STATUS_OF[end["type"]],
        "error": error,
        "timing": end["timing"],
        "usage": end["usage"],
        "attempts": reader.attempts,
    }


def _whole_answer(reader: JobReader) -> str:
    """The text and, once they are complete, the tool calls, each on a line of its own."""
    calls = [f"{call['function']['name']}({call['function']['arguments']})" for call in reader.tool_calls]
    text = reader.text + reader.refusal
    return "\n".join([text, *calls] if text else calls)


def _figures(reader: JobReader, job: dict[str, Any]) -> str:
    timing, usage = job["timing"], job["usage"]
    parts = ["cancelled"] if job["status"] == "cancelled" else []
    if timing.get("ttft_s") is not None:
        parts.append(f"TTFT {timing['ttft_s']:.2f} s")
    if timing.get("tokens_per_s") is not None:
        parts.append(f"{timing['tokens_per_s']:.1f} tokens/s")
    parts.append(f"{'about ' if usage.get('estimated') else ''}{counted(usage['output_tokens'], 'token')}")
    parts.append(counted(len(job["attempts"]), "attempt"))
    if reader.connections > 1:
        parts.append(counted(reader.connections, "connection"))
    if reader.lost or reader.doubled:
        parts.append(f"lost {reader.lost}, doubled {reader.doubled}")
    return " · ".join(parts)
