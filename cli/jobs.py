"""`lastevent jobs`: the recent ones, newest first; a table on a terminal, a line of tab-separated columns each in a pipe."""

import time
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final

from rich.markup import escape
from rich.table import Table

from cli.api import Api, with_api
from cli.output import Output, harmless, print_line

PAGE: Final = 100
"""The most that one call of the listing answers with (protocol 6)."""

COLUMNS: Final = ("id", "state", "age", "tokens", "model", "first words")
STYLES: Final = {"queued": "yellow", "running": "cyan", "done": "green", "failed": "red", "cancelled": "dim"}
FIRST_WORDS: Final = 200
"""Characters of an answer that a row gives the table to cut."""


async def run_jobs(url: str, output: Output, *, status: str | None, limit: int) -> int:
    """Lists up to `limit` jobs, of one status or of any, and returns the exit code."""

    async def listing(api: Api) -> int:
        jobs = [job async for job in _newest(api, status, limit)]
        if output.as_json:
            output.document(jobs)
        elif output.out.is_terminal:
            _print_table(output, jobs, status)
        else:
            for job in jobs:
                output.write("\t".join(_row(job, time.time())) + "\n")
        return 0

    return await with_api(url, output, listing)


async def _newest(api: Api, status: str | None, limit: int) -> AsyncIterator[dict[str, Any]]:
    """Page by page. Raises ApiError."""
    after: str | None = None
    while limit > 0:
        query = {"limit": min(limit, PAGE), "status": status, "after": after}
        page = await api.call("GET", "/v1/jobs", params={name: value for name, value in query.items() if value is not None})
        for job in page["data"]:
            yield job
        limit, after = limit - len(page["data"]), page["next"]
        if after is None:
            return


def _print_table(output: Output, jobs: Sequence[dict[str, Any]], status: str | None) -> None:
    if not jobs:
        print_line(output.out, "", _nothing(status), style="dim")
        return
    table = Table(box=None, header_style="dim", pad_edge=False, padding=(0, 2, 0, 0), expand=True)
    for column in COLUMNS:
        # Where it is narrow the model and the words are cut; an id that is cut is none.
        share = {"model": 2, "first words": 3}.get(column)
        justify = "right" if column in ("age", "tokens") else "left"
        table.add_column(column, no_wrap=True, overflow="ellipsis", ratio=share, justify=justify)  # type: ignore[arg-type]
    for job in jobs:
        cells = [escape(cell) for cell in _row(job, time.time())]
        cells[1] = f"[{STYLES.get(job['status'], 'default')}]{cells[1]}[/]"
        table.add_row(*cells)
    output.out.print(table)


def _nothing(status: str | None) -> str:
    return f"no job is {status}" if status else 'no jobs yet; try: lastevent ask "Tell me about lighthouses."'


def _row(job: dict[str, Any], now: float) -> Iterator[str]:
    yield job["id"]
    yield job["status"]
    yield _age(now - job["created_at"])
    yield str(job["usage"]["output_tokens"])
    yield harmless(job["model"])
    yield harmless(" ".join(_words(job).split()))


def _words(job: dict[str, Any]) -> str:
    """What best says what a job is about: its answer, else why there is none."""
    if job["text"]:
        return str(job["text"][:FIRST_WORDS])
    if job["error"]:
        return f"error/{job['error']['code']}: {job['error']['message']}"
    calls = [call["function"]["name"] for call in job["tool_calls"]]
    return str(job.get("refusal", "")[:FIRST_WORDS]) or ", ".join(f"{name}(…)" for name in calls)


def _age(seconds: float) -> str:
    """In the largest unit of which there are two or more, but for seconds."""
    for unit, length in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{int(seconds // length)} {unit}"
    return f"{max(0, int(seconds))} s"
