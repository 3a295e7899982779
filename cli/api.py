"""The calls of protocol 2, for a command that talks to a person: whatever goes wrong is one line that says what to do."""

import re
import uuid
from contextlib import suppress
from typing import Any, Final

import httpx2
from rich.console import Console
from rich.markup import escape

SUBMIT_TRIES: Final = 3
"""A submit whose answer was lost is sent again: under one Idempotency-Key it stays one job."""

# All but tab and newline: a model must not steer the terminal that shows its words.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class ApiError(Exception):
    """The call came to nothing; the message is one line for a person. `code` is the problem's, where the server sent one."""

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message)
        self.code = code


class NoAnswer(ApiError):
    """The request went out and nothing came back: it may or may not have been taken."""


class Api:
    """One server. `client` belongs to the caller."""

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self.url = url.rstrip("/")
        self.client = client

    async def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """The JSON object that the server answers with. Raises: ApiError, which says what is wrong."""
        try:
            response = await self.client.request(method, self.url + path, **options)
        except (httpx2.UnsupportedProtocol, httpx2.InvalidURL):
            raise ApiError(f"{self.url!r} is not a URL like http://127.0.0.1:8000") from None
        except (httpx2.ConnectError, httpx2.ConnectTimeout):
            raise ApiError(f"nothing answers at {self.url}: start it with `lastevent up`") from None
        except httpx2.RequestError as error:
            raise NoAnswer(f"{self.url} breaks off before it answers ({type(error).__name__})") from None
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.status_code >= 400:
            line = _problem_line(body) or self._stranger(response.status_code)
            raise ApiError(line, body.get("code") if isinstance(body, dict) else None)
        if not isinstance(body, dict):
            raise ApiError(self._stranger(response.status_code))
        return body

    async def first_model(self) -> str:
        """The id of the model that the server lists first. Raises ApiError."""
        models = (await self.call("GET", "/v1/models")).get("data")
        if not models:
            raise ApiError(f"{self.url} offers no model")
        return str(models[0]["id"])

    async def submit(self, request: dict[str, Any]) -> str:
        """The job's id. Raises ApiError."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        for _ in range(SUBMIT_TRIES - 1):
            with suppress(NoAnswer):
                return str((await self.call("POST", "/v1/jobs", json=request, headers=headers))["id"])
        return str((await self.call("POST", "/v1/jobs", json=request, headers=headers))["id"])

    async def cancel(self, job_id: str) -> None:
        """Raises ApiError."""
        await self.call("POST", f"/v1/jobs/{job_id}/cancel")

    def _stranger(self, status: int) -> str:
        return f"what answers at {self.url} is not Lastevent (HTTP {status})"


def print_line(console: Console, head: str, text: str, style: str | None = None) -> None:
    """`text` as one line, whatever it holds, behind `head`, which is markup."""
    line = harmless(" ".join(text.split()))
    console.print(f"{head} {escape(line)}".strip(), style=style, soft_wrap=True, highlight=False)


def harmless(text: str) -> str:
    """`text` without what would steer a terminal."""
    return _CONTROL.sub("\ufffd", text)


def _problem_line(problem: object) -> str | None:
    """problem+json in one line; the fields, where it names some, say more than its detail."""
    if not isinstance(problem, dict):
        return None
    errors = [f"{e['field']}: {e['message']}" if e["field"] else str(e["message"]) for e in problem.get("errors") or []]
    return "; ".join(errors) or problem.get("detail") or problem.get("title")
