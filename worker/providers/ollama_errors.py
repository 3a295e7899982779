"""What goes wrong at Ollama, in the words of protocol 4.1. No I/O.

    an answer with a status         Refused, ours (`ollama_stream.py`)            by status
    an error line in mid-stream     ollama.ResponseError without a status         overloaded: there are only words
    silence                         httpx's own                                   timeout
    a broken connection             httpx's own                                   connection
    lines that are no objects       JSONDecodeError, AttributeError, TypeError    connection

The messages are for the person who asked, and mostly that person runs the server too: they say what to type.
"""

import json
from collections.abc import Mapping
from typing import Final

import httpx
import ollama

from shared.errors import ErrorCode, GenerationFailed
from shared.providers import ProviderConfig
from worker.providers.failure_text import (
    broken_connection,
    code_of_status,
    one_line,
    retry_after_s,
    said_by_code,
    sentence,
    words_of,
)
from worker.providers.key import bare_key


class Refused(Exception):
    """Another answer than a stream."""

    def __init__(self, status: int, body: str, headers: Mapping[str, str]) -> None:
        super().__init__(f"status {status}")
        self.status = status
        self.body = body
        self.headers = headers


UPSTREAM_ERRORS: Final = (
    Refused,
    ollama.ResponseError,
    httpx.HTTPError,
    httpx.StreamError,  # the client was closed under a stream
    httpx.InvalidURL,  # of a redirect
    OSError,  # TLS, and what the transport did not wrap
    json.JSONDecodeError,
    AttributeError,  # the client takes each line for an object,
    TypeError,  # and what is in its `error` for text
)
"""Everything that opening or reading a stream raises because of the other side."""


def failure_of(error: Exception, model: str, config: ProviderConfig, url: str = "") -> GenerationFailed:
    """One of `UPSTREAM_ERRORS` as the attempt's failure.

    Args:
        model: the model's whole id, as `ollama/llama3.2`.
        config: its key must not show, wherever it stands it becomes `[key]`; and it knows which settings to look at.
        url: where the request went, for a connection that never came about.
    """
    code: ErrorCode
    asked_s = None
    if isinstance(error, Refused):
        code, said = _of_answer(error, model, config)
        asked_s = retry_after_s(error.headers)
    elif isinstance(error, ollama.ResponseError):
        words = one_line(error.error) if isinstance(error.error, str) else ""
        code, said = "overloaded", f"{model} failed (in mid-stream)" + (f": {words}" if words else "")
    elif isinstance(error, httpx.HTTPError | httpx.StreamError | OSError):
        code, said = _of_transport(error, model, config, url)
    else:
        code, said = "connection", f"{model} sent what is not a stream of objects ({type(error).__name__})"
    return GenerationFailed(code, sentence(said, bare_key(config)), retry_after_s=asked_s)


def _of_transport(error: Exception, model: str, config: ProviderConfig, url: str) -> tuple[ErrorCode, str]:
    if isinstance(error, httpx.ConnectError):
        why = one_line(str(error)) or type(error).__name__
        hint = f"start Ollama there (ollama serve), or set {config.address_setting} where the workers run"
        return "connection", f"{model} could not be reached: nothing answers at {url} ({why}): {hint}"
    unreachable = isinstance(error, httpx.ConnectTimeout | httpx.UnsupportedProtocol)
    timed_out = isinstance(error, httpx.TimeoutException | TimeoutError)
    return broken_connection(error, model, url, unreachable=unreachable, timed_out=timed_out)


def _of_answer(error: Refused, model: str, config: ProviderConfig) -> tuple[ErrorCode, str]:
    code, words = code_of_status(error.status), _words(error.body)
    if error.status == 404:
        name = model.partition("/")[2]
        hint = f"check {config.address_setting} where the workers run"
        return code, f"{model} was not found (404): {f'run `ollama pull {name}` where Ollama runs' if words else hint}"
    if error.status == 401:
        # The server's own words are left out: they could repeat the key.
        hint = f"{config.key_advice()}; on a server of your own: `ollama signin`"
        return code, f"{model} refused the key (401): {hint}"
    return code, f"{model} {said_by_code(code)} ({error.status})" + (f": {words}" if words else "")


def _words(body: str) -> str:
    """`{"error": "…"}`; empty where the answer is not Ollama's."""
    try:
        answer = json.loads(body)
    except json.JSONDecodeError:
        return ""
    said = answer.get("error") if isinstance(answer, dict) else None
    return words_of(said)
