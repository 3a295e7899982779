"""`lastevent demo`: a real model's answer survives a cut connection and a killed worker, and the ids prove it.

    submit ─► stream ─► cut our own connection ─► resume with Last-Event-ID ─► SIGKILL the worker that generates
           ─► another worker takes over and goes on in the middle of the sentence ─► done ─► compare with the record

Runs on a stack of its own, in a temporary folder, on a free port; nothing of it is left afterwards.
"""

import asyncio
import os
import signal
import tempfile
import time
from collections import deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx2

from cli.demo_view import DemoView, Terminal
from cli.output import Output
from cli.reader import JobReader, StreamLost, StreamRefused
from cli.signals import INTERRUPTED, on_stop_signals
from cli.stack import Stack, first
from shared.errors import LasteventError
from shared.models import BUNDLED_MODEL
from shared.settings import LOCAL_LANE, Settings, load_settings

PROMPT = "Tell me a long story about a lighthouse keeper who finds a message in a bottle."
WORKERS = 2
"""One to be killed and one to take over."""

WARM_UP_TOKENS = 16
SHORTEST_ANSWER, LONGEST_ANSWER = 160, 1500
ANSWER_S = 7.0
"""How long the answer should take: the reader comes back 1 to 3 s after the cut (protocol 4.4), and then there must be
something left to be killed, on a fast machine too."""

CUT_AT, KILL_AT = 0.2, 0.45
"""Shares of the answer, in tokens: where the connection is cut, and from where on the worker is killed."""

TIME_LIMIT_S = 300.0
"""Then something hangs. It takes about 40 s on two idle cores, 20 more when the model is converted first, and several times
that where others compute too."""


class DemoFailed(LasteventError):
    """What the demo wanted to show did not happen; the message says what did."""


async def run_demo(output: Output) -> int:
    """Runs the demo; the exit code: 0 only if nothing was lost, nothing doubled and all three texts are equal. With `--json`
    what happens is told on stderr, and stdout gets the proof, or null where it did not come to one.

    Raises:
        ConfigurationError: the stack cannot be started here.
    """
    view = DemoView(Terminal(stderr=output.as_json, highlight=False))
    log: deque[str] = deque(maxlen=25)
    with tempfile.TemporaryDirectory(prefix="lastevent-demo-") as folder:
        # No Redis, host, port or keys of the user's environment: the demo touches nothing of theirs.
        settings = load_settings(port=0, host="127.0.0.1", data_dir=Path(folder), lanes=(LOCAL_LANE,), api_keys=())
        stack = Stack(settings, {LOCAL_LANE: WORKERS}, lambda name, line: log.append(f"{name} │ {line}"))
        stopped = on_stop_signals(stack.supervisor.kill)
        demo = Demo(stack, settings, view)
        try:
            async with asyncio.timeout(TIME_LIMIT_S):
                await first(demo.run(), stopped.wait())
        except (DemoFailed, StreamLost, StreamRefused, httpx2.HTTPError) as error:
            view.note("✗", f"The demo failed: {str(error) or type(error).__name__}", "bold red")
            view.log(list(log))
        except TimeoutError:
            view.note("✗", f"The demo hangs: not done within {TIME_LIMIT_S:g} s.", "bold red")
            view.log(list(log))
        finally:
            view.waiting("stopping the stack")
            await stack.stop()
            view.calm()
    if output.as_json:
        output.document(demo.proof and asdict(demo.proof) | {"holds": demo.proof.holds})
    if stopped.is_set():
        return INTERRUPTED
    if demo.proof is None or not demo.proof.holds:
        return 1
    view.note("✓", "Nothing lost, nothing doubled. Next: make run, then open http://127.0.0.1:8000", "bold green")
    return 0


@dataclass
class Seen:
    """What one reader saw of the answer."""

    tokens: int = 0
    longest_pause_s: float = 0.0
    last_at: float | None = None

    def take(self, n: int) -> None:
        """`n` token entries came, in one frame."""
        now = time.monotonic()
        if self.last_at is not None:
            self.longest_pause_s = max(self.longest_pause_s, now - self.last_at)
        self.tokens, self.last_at = self.tokens + n, now


@dataclass(frozen=True)
class Proof:
    """What three witnesses say: the ids that the reader saw, the record of the job, and a replay of every single entry."""

    job_id: str
    ttft_s: float
    tokens: int
    tokens_per_s: float
    """From the first token to the end, interruptions included."""
    reconnects: int
    takeovers: int
    longest_pause_s: float
    lost: int
    doubled: int
    same_as_job: bool
    same_as_replay: bool

    @property
    def holds(self) -> bool:
        return self.lost == 0 and self.doubled == 0 and self.same_as_job and self.same_as_replay and self.takeovers > 0


class Demo:
    """One run. `proof` tells how it went; None: it did not get that far."""

    def __init__(self, stack: Stack, settings: Settings, view: DemoView) -> None:
        self._stack = stack
        self._settings = settings
        self._view = view
        self.proof: Proof | None = None

    async def run(self) -> None:
        """Raises: DemoFailed, and whatever the stack, the reader and HTTP raise."""
        async with self._view.progress(f"starting Redis, a web server and {WORKERS} workers with {BUNDLED_MODEL}"):
            await self._stack.start()
            async with self._client() as client:
                await self._all_workers(client)
        async with self._client() as client:
            async with self._view.progress("a short answer first, to see how fast this machine is"):
                speed = await self._measure_speed(client)
            length = min(max(SHORTEST_ANSWER, round(speed * ANSWER_S)), LONGEST_ANSWER)
            self._view.note("?", PROMPT, "bold")
            job_id = await self._submit(client, PROMPT, length)
            reader = JobReader(self._stack.base_url, job_id, client=client)
            seen = await self._watch(client, reader, job_id, length)
            await self._prove(client, reader, job_id, seen)

    def _client(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(base_url=self._stack.base_url, timeout=30.0, trust_env=False)

    async def _all_workers(self, client: httpx2.AsyncClient) -> None:
        """`/readyz` asks for one worker a lane; the takeover needs the second one."""
        while len(await _get(client, "/v1/workers", "data")) < WORKERS:  # noqa: ASYNC110  # HTTP can only be asked again
            await asyncio.sleep(0.1)

    async def _measure_speed(self, client: httpx2.AsyncClient) -> float:
        """Tokens per second."""
        reader = JobReader(self._stack.base_url, await self._submit(client, "Hello!", WARM_UP_TOKENS), client=client)
        first_at = last_at = 0.0
        tokens = 0
        async for frame in reader:
            if frame["type"] == "token":
                last_at, tokens = time.monotonic(), tokens + frame.get("n", 1)
                first_at = first_at or last_at
        self._check_done(reader)
        return tokens / max(last_at - first_at, 0.01)

    async def _submit(self, client: httpx2.AsyncClient, prompt: str, max_tokens: int) -> str:
        request = {"model": f"local/{BUNDLED_MODEL}", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0}
        answer = await client.post("/v1/jobs", json=request)
        if answer.status_code != 202:
            raise DemoFailed(f"the submit was answered with {answer.status_code}: {answer.text}")
        return str(answer.json()["id"])

    async def _watch(self, client: httpx2.AsyncClient, reader: JobReader, job_id: str, length: int) -> Seen:
        """Reads the answer to its end, and does to it what the demo is about."""
        seen, cut, killed, away = Seen(), False, False, False
        async for frame in reader:
            kind = frame["type"]
            if away and kind != "dropped":
                away = False
                self._view.note(
                    "↻", f"resumed with Last-Event-ID; connection {reader.connections} goes on at {frame.get('id')}"
                )
            if kind == "token":
                seen.take(frame.get("n", 1))
                self._view.text(frame["text"])
            elif kind == "dropped":
                away = True
                self._view.note(
                    "✂", f"the connection is cut; all I keep is the id of the last event: {reader.cursor}", "yellow"
                )
                self._view.waiting(f"back in {reader.retry_s:.1f} s, as the server asked")
            elif kind == "started":
                self._show_attempt(frame)
            if kind == "token" and not cut and seen.tokens >= CUT_AT * length:
                cut = True
                reader.drop()
            elif kind == "token" and not killed and reader.connections > 1 and seen.tokens >= KILL_AT * length:
                killed = True
                await self._kill_worker(client, job_id, reader.cursor)
        self._check_done(reader)
        if not (cut and killed):
            raise DemoFailed(f"the answer was over after {seen.tokens} tokens, before anything could be cut and killed")
        return seen

    def _show_attempt(self, frame: dict[str, Any]) -> None:
        how = "from the start" if frame["reset"] else "in the middle of the sentence"
        if frame["reason"] != "first":
            self._view.note("⇄", f"attempt {frame['attempt']} ({frame['reason']}) by {frame['worker']}: goes on {how}")

    async def _kill_worker(self, client: httpx2.AsyncClient, job_id: str, cursor: str | None) -> None:
        """SIGKILL to the worker that has the job: no warning, no clean-up, as an out-of-memory kill or a lost machine."""
        job = await _get(client, f"/v1/jobs/{job_id}")
        if job["status"] != "running":
            raise DemoFailed(f"there is no worker to kill: the job is {job['status']} already")
        worker = job["attempts"][-1]["worker"]
        workers = {entry["id"]: entry for entry in await _get(client, "/v1/workers", "data")}
        entry = workers.get(worker)
        if entry is None or entry["host"] != self._settings.hostname or entry["pid"] not in self._children():
            raise DemoFailed(f"the worker {worker!r} of the job is no child of this demo: {entry}")
        os.kill(entry["pid"], signal.SIGKILL)
        self._view.note("✗", f"SIGKILL to worker {worker} (pid {entry['pid']}) in mid-sentence, at {cursor}", "bold red")
        self._view.waiting(f"its lease of {self._settings.lease_s:g} s runs out, then another worker takes over")

    def _children(self) -> set[int]:
        return set(self._stack.supervisor.pids().values())

    def _check_done(self, reader: JobReader) -> None:
        if reader.terminal is None or reader.terminal["type"] != "done":
            raise DemoFailed(f"the job did not end well: {reader.terminal}")

    async def _prove(self, client: httpx2.AsyncClient, reader: JobReader, job_id: str, seen: Seen) -> None:
        """Asks the other two witnesses. Raises DemoFailed where they disagree."""
        job = await _get(client, f"/v1/jobs/{job_id}")
        replay, replayed = JobReader(self._stack.base_url, job_id, client=client, merge=False), Seen()
        async for frame in replay:
            if frame["type"] == "token":
                replayed.take(frame.get("n", 1))
        timing = job["timing"]
        self.proof = Proof(
            job_id=job_id,
            ttft_s=timing["ttft_s"],
            tokens=seen.tokens,
            tokens_per_s=round(seen.tokens / (timing["total_s"] - timing["ttft_s"]), 1),
            reconnects=reader.connections - 1,
            takeovers=sum(attempt["reason"] == "takeover" for attempt in reader.attempts),
            longest_pause_s=round(seen.longest_pause_s, 3),
            lost=reader.lost + replay.lost + max(0, replayed.tokens - seen.tokens),
            doubled=reader.doubled + replay.doubled + max(0, seen.tokens - replayed.tokens),
            same_as_job=reader.text == job["text"],
            same_as_replay=reader.text == replay.text,
        )
        self._view.table("What the reader got", _rows(self.proof), self.proof.holds)
        if not self.proof.holds:
            raise DemoFailed("this should not have happened, see the table")


def _rows(proof: Proof) -> dict[str, str]:
    return {
        "time to first token": f"{proof.ttft_s:.2f} s",
        "tokens": str(proof.tokens),
        "tokens/s, interruptions included": f"{proof.tokens_per_s:.1f}",
        "reconnects": str(proof.reconnects),
        "takeovers": str(proof.takeovers),
        "longest time without a token": f"{proof.longest_pause_s:.1f} s",
        "lost": str(proof.lost),
        "doubled": str(proof.doubled),
        "text equals GET /v1/jobs/{id}": _yes(proof.same_as_job),
        "text equals a replay of every entry": _yes(proof.same_as_replay),
    }


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


async def _get(client: httpx2.AsyncClient, path: str, field: str | None = None) -> Any:
    answer = await client.get(path)
    answer.raise_for_status()
    body = answer.json()
    return body if field is None else body[field]
