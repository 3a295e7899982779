"""`lastevent ask`: one job, streamed to the terminal; it reconnects by itself, and Ctrl-C cancels the job.

The answer goes to stdout and nothing else does; notes, the closing figures and errors go to stderr. Exit codes: 0 done,
1 the job failed, 2 it could not be asked or read, 130 cancelled.
"""

import asyncio
import json
import os
import signal
import sys
from typing import Any, Final

import httpx2
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.status import Status

from cli.api import Api, ApiError, harmless, print_line
from cli.reader import JobReader, StreamLost, StreamRefused

REFUSED: Final = 2
CANCELLED: Final = 130
EXIT_CODES: Final = {"done": 0, "error": 1, "cancelled": CANCELLED}

WAITING_FOR: Final = {
    "queued": "waiting for a worker",
    "started": "waiting for the first token",
    "reasoning": "thinking",
}
"""What the line under the prompt says after an event of this type, until there is text."""


async def run_ask(
    prompt: str,
    *,
    url: str,
    model: str | None,
    system: str | None,
    max_tokens: int | None,
    temperature: float | None,
    seed: int | None,
    as_json: bool,
) -> int:
    """Asks as the command line says, and returns the exit code. Without a model it is the server's first."""
    asked: dict[str, Any] = {"model": model, "prompt": prompt, "system": system, "max_tokens": max_tokens}
    asked |= {"temperature": temperature, "seed": seed}
    return await ask(url, {name: value for name, value in asked.items() if value is not None}, as_json=as_json)


async def ask(
    base_url: str,
    request: dict[str, Any],
    *,
    as_json: bool = False,
    out: Console | None = None,
    err: Console | None = None,
) -> int:
    """Submits the request, follows its job to the end, and returns the exit code.

    `as_json` prints nothing on the way and the Job of protocol 2.2 at the end.
    """
    out, err = out or Console(), err or Console(stderr=True)
    async with httpx2.AsyncClient(timeout=httpx2.Timeout(30.0, connect=5.0)) as client:
        try:
            return await _Ask(Api(base_url, client), out, err, as_json).run(request)
        except ApiError as error:
            print_line(err, "[red]lastevent:[/]", str(error))
            return REFUSED
        except BrokenPipeError:  # stdout's reader has left; the job does not depend on it (protocol P3)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the interpreter's last flush is silent
            return EXIT_CODES["error"]


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


class _Ask:
    """One question: its job, its reader, its screen."""

    def __init__(self, api: Api, out: Console, err: Console, as_json: bool) -> None:
        self.api, self.as_json = api, as_json
        self.out, self.err, self.screen = out, err, Screen(out, err)
        self.waiting = Status("submitting", console=err)
        self.job_id: str | None = None
        self.cancelling: asyncio.Task[None] | None = None
        self.left = False

    async def run(self, request: dict[str, Any]) -> int:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        loop.add_signal_handler(signal.SIGINT, self._interrupt, task)
        if self.err.is_terminal:
            self.waiting.start()
        try:
            return await self._ask(request)
        except (StreamRefused, StreamLost) as error:
            raise ApiError(str(error)) from None
        except asyncio.CancelledError:
            if not self.left:
                raise
            task.uncancel()
            return CANCELLED
        finally:
            loop.remove_signal_handler(signal.SIGINT)
            self.waiting.stop()
            self.screen.close()
            if self.cancelling is not None:
                self.cancelling.cancel()
                await asyncio.wait({self.cancelling})

    async def _ask(self, request: dict[str, Any]) -> int:
        if "model" not in request:
            request = {**request, "model": await self.api.first_model()}
        self.job_id = await self.api.submit(request)
        reader = JobReader(self.api.url, self.job_id, client=self.api.client)
        await self._follow(reader)
        self.waiting.stop()
        if self.as_json:
            self._print_json(await self.api.call("GET", f"/v1/jobs/{self.job_id}"))
        else:
            self.screen.show(_whole_answer(reader), final=True)
            self.screen.close()
        return self._conclude(reader)

    async def _follow(self, reader: JobReader) -> None:
        before = ""
        async for frame in reader:
            kind = frame["type"]
            if kind == "dropped" and before != "dropped":  # one note for a whole row of failures
                self._note(f"connection lost, resuming from {reader.cursor or 'the start'}")
            elif kind == "started" and frame["reason"] != "first":
                self._note(f"attempt {frame['attempt']}: {frame['reason']}")
            elif kind in WAITING_FOR:
                self.waiting.update(WAITING_FOR[kind])
            if not self.as_json:
                self._show(reader.text + reader.refusal)
            before = kind

    def _show(self, answer: str) -> None:
        if answer:
            self.waiting.stop()
        self.screen.show(answer)

    def _note(self, message: str) -> None:
        self.waiting.stop()
        self.screen.note(message)

    def _interrupt(self, task: asyncio.Task[Any]) -> None:
        """Ctrl-C: the first one cancels the job, the next one, or one before there is a job, leaves."""
        if self.job_id is not None and self.cancelling is None:
            self._note("cancelling the job; Ctrl-C again leaves at once")
            self.cancelling = asyncio.ensure_future(self._cancel(self.job_id))
        else:
            self.left = True
            task.cancel()

    async def _cancel(self, job_id: str) -> None:
        try:
            await self.api.cancel(job_id)
        except ApiError as error:
            self._note(f"the cancel did not get through: {error}")

    def _print_json(self, job: dict[str, Any]) -> None:
        text = json.dumps(job, ensure_ascii=False, indent=2)
        self.out.file.write((harmless(text) if self.out.is_terminal else text) + "\n")
        self.out.file.flush()

    def _conclude(self, reader: JobReader) -> int:
        end = reader.terminal
        assert end is not None, "a reader that began at the first event saw the last one"
        if end["type"] == "error":
            kept = "; what came before it is kept" if end.get("partial") else ""
            print_line(self.err, f"[red]error/{escape(end['code'])}:[/]", end["message"] + kept)
        print_line(self.err, "", _figures(reader, end), style="dim")
        return EXIT_CODES[end["type"]]


def _whole_answer(reader: JobReader) -> str:
    """The text and, once they are complete, the tool calls, each on a line of its own."""
    calls = [f"{call['function']['name']}({call['function']['arguments']})" for call in reader.tool_calls]
    text = reader.text + reader.refusal
    return "\n".join([text, *calls] if text else calls)


def _figures(reader: JobReader, end: dict[str, Any]) -> str:
    timing, usage = end["timing"], end["usage"]
    parts = ["cancelled"] if end["type"] == "cancelled" else []
    if timing.get("ttft_s") is not None:
        parts.append(f"TTFT {timing['ttft_s']:.2f} s")
    if timing.get("tokens_per_s") is not None:
        parts.append(f"{timing['tokens_per_s']:.1f} tokens/s")
    parts.append(f"{'about ' if usage.get('estimated') else ''}{_count(usage['output_tokens'], 'token')}")
    parts.append(_count(len(reader.attempts), "attempt"))
    if reader.connections > 1:
        parts.append(_count(reader.connections, "connection"))
    if reader.lost or reader.doubled:
        parts.append(f"lost {reader.lost}, doubled {reader.doubled}")
    return " · ".join(parts)


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
