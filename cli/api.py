"""The calls of protocol 2, for a command that talks to a person: whatever goes wrong is one line that says what to do."""

import os
import ssl
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

import httpx2

from cli.output import Output, forget_stdout
from shared.errors import ConfigurationError

SUBMIT_TRIES: Final = 3
"""A submit whose answer was lost is sent again: under one Idempotency-Key it stays one job."""

KEY_VARIABLE: Final = "LASTEVENT_API_KEY"

REFUSED: Final = 2
"""The exit code of a command that the server, or its absence, refused."""


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
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            if _is_of_tls(error):
                why = f"{error}; is it http://, or has it a certificate that this machine does not trust?"
                raise ApiError(f"no TLS with {self.url}: {why}") from None
            raise ApiError(f"nothing answers at {self.url}: start it with `lastevent up`") from None
        except httpx2.RequestError as error:
            raise NoAnswer(f"{self.url} breaks off before it answers ({type(error).__name__})") from None
        if response.status_code == 204:
            return {}
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.status_code >= 400:
            line = _problem_line(body) or self._stranger(response.status_code)
            if response.status_code == 401 and not os.environ.get(KEY_VARIABLE):
                line += f" {KEY_VARIABLE} is not set."
            if response.status_code == 404 and self.url.endswith("/v1"):
                line += f" The server is named without /v1: {self.url.removesuffix('/v1')}"
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

    async def submit(self, request: dict[str, Any]) -> dict[str, Any]:
        """The Job, as it was taken. Raises ApiError."""
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        for _ in range(SUBMIT_TRIES - 1):
            with suppress(NoAnswer):
                return await self.call("POST", "/v1/jobs", json=request, headers=headers)
        return await self.call("POST", "/v1/jobs", json=request, headers=headers)

    async def job(self, job_id: str) -> dict[str, Any]:
        """The Job as it stands. Raises ApiError."""
        return await self.call("GET", _path(job_id))

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """The Job, which may still be running: its worker is then asked to stop. Raises ApiError."""
        return await self.call("POST", f"{_path(job_id)}/cancel")

    async def delete(self, job_id: str) -> None:
        """Raises ApiError."""
        await self.call("DELETE", _path(job_id))

    def _stranger(self, status: int) -> str:
        return f"what answers at {self.url} is not Lastevent (HTTP {status})"


async def with_api(url: str, output: Output, act: Callable[[Api], Awaitable[int]]) -> int:
    """Runs a command's calls, and returns its exit code. Whatever the server says no to is one line on stderr."""
    async with connected(url) as api:
        try:
            return await act(api)
        except ApiError as error:
            output.fail(str(error))
            return REFUSED
        except BrokenPipeError:  # no job depends on who reads it (protocol P3)
            forget_stdout()
            return 1


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Api]:
    """A server to call, with the key of this environment."""
    async with httpx2.AsyncClient(timeout=httpx2.Timeout(30.0, connect=5.0), headers=key_headers()) as client:
        yield Api(url, client)


def key_headers() -> dict[str, str]:
    """What every call of a command says about who asks: the key in LASTEVENT_API_KEY; nothing where none is set.

    Raises:
        ConfigurationError: what is set there cannot be a key. It is not repeated.
    """
    key = os.environ.get(KEY_VARIABLE, "").strip()
    if not (key.isascii() and key.isprintable()) or " " in key:
        raise ConfigurationError(f"{KEY_VARIABLE} is no key: it must be what `lastevent keys new` printed, le_…")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _is_of_tls(error: BaseException | None) -> bool:
    """Whether somebody answered, but not as https:// has it."""
    if isinstance(error, ssl.SSLError) and not isinstance(error, ssl.SSLWantReadError):  # that one is a wait in vain
        return True
    return error is not None and _is_of_tls(error.__cause__ or error.__context__)


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quote(job_id, safe='')}"


def _problem_line(problem: object) -> str | None:
    """problem+json in one line; the fields, where it names some, say more than its detail."""
    if not isinstance(problem, dict):
        return None
    errors = [f"{e['field']}: {e['message']}" if e["field"] else str(e["message"]) for e in problem.get("errors") or []]
    return "; ".join(errors) or problem.get("detail") or problem.get("title")
