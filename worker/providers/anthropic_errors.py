"""What goes wrong at Anthropic, in the words of protocol 4.1. No I/O.

A failure reaches this process in five shapes, and the anthropic SDK wraps only some of them:

    an answer with a status         anthropic.APIStatusError                      by its type, else by status
    an error event in mid-stream    anthropic.APIStatusError with the status 200  by its type
    silence                         anthropic.APITimeoutError, httpx2's own       timeout
    a broken connection             anthropic.APIConnectionError, httpx2's own    connection
    bytes that are no event         JSONDecodeError, UnicodeDecodeError           connection

The messages are for the person who asked: one sentence that names the model, the status and, for what they can mend, what to
do. They never hold a key.
"""

import json
from collections.abc import Mapping
from typing import Final

import anthropic
import httpx2

from shared.errors import ErrorCode, GenerationFailed
from shared.providers import ProviderConfig
from worker.providers.failure_text import broken_connection, code_of_status, retry_after_s, said_by_code, sentence, words_of
from worker.providers.key import bare_key

UPSTREAM_ERRORS: Final = (
    anthropic.AnthropicError,
    httpx2.HTTPError,  # leaks from every broken stream
    httpx2.StreamError,  # the client was closed under a stream
    httpx2.InvalidURL,  # of a redirect
    OSError,  # TLS, and what the transport did not wrap
    json.JSONDecodeError,
    UnicodeDecodeError,
)
"""Everything that opening or reading a stream raises because of the other side."""

_BY_TYPE: Final[Mapping[str, ErrorCode]] = {
    "invalid_request_error": "bad_request",
    "request_too_large": "bad_request",
    "not_found_error": "bad_request",
    "authentication_error": "auth",
    "permission_error": "auth",
    "billing_error": "rate_limit",
    "rate_limit_error": "rate_limit",
    "timeout_error": "timeout",
    "api_error": "overloaded",
    "overloaded_error": "overloaded",
}
"""By an error's `type`. Any other in mid-stream is the server's own trouble: `overloaded`."""


def failure_of(error: Exception, model: str, config: ProviderConfig, host: str = "") -> GenerationFailed:
    """One of `UPSTREAM_ERRORS` as the attempt's failure.

    Args:
        model: the model's whole id, as `anthropic/claude-sonnet-5-5`.
        config: its key must not show, wherever it stands it becomes `[key]`; and it knows which settings to look at.
        host: where the request went, for a connection that never came about.
    """
    retryable, asked_s = None, None
    if isinstance(error, anthropic.APIStatusError):
        code, retryable, said = _of_answer(error, model, config)
        asked_s = retry_after_s(error.response.headers)
    elif isinstance(error, anthropic.APIConnectionError | httpx2.HTTPError | httpx2.StreamError | OSError):
        code, said = _of_transport(error, model, host)
    else:
        code, said = "connection", f"{model} sent what is not an event stream ({type(error).__name__})"
    return GenerationFailed(code, sentence(said, bare_key(config)), retryable=retryable, retry_after_s=asked_s)


def _of_transport(error: Exception, model: str, host: str) -> tuple[ErrorCode, str]:
    cause = error.__cause__ if isinstance(error, anthropic.APIConnectionError) else error
    cause = cause if isinstance(cause, Exception) else error
    return broken_connection(
        cause,
        model,
        host,
        unreachable=isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol),
        timed_out=isinstance(error, anthropic.APITimeoutError | httpx2.TimeoutException | TimeoutError),
    )


def _of_answer(error: anthropic.APIStatusError, model: str, config: ProviderConfig) -> tuple[ErrorCode, bool | None, str]:
    """Code, `retryable` where it is not the code's own, and the sentence."""
    status = error.status_code if error.status_code >= 400 else None
    kind = error.type if isinstance(error.type, str) else None
    code = _BY_TYPE.get(kind or "") or ("overloaded" if status is None else code_of_status(status))
    shown = " ".join(str(part) for part in (status, kind) if part) or "in mid-stream"
    words = _words(error)
    if kind == "billing_error" or status == 402:
        hint = "check plan and billing of the account that the key belongs to"
        return code, False, f"{model} has no credit left ({shown}): {words or hint}"
    if code == "auth" and kind != "permission_error" and status != 403:
        # The server's own words are left out: they could repeat the key.
        return code, None, f"{model} refused the key ({shown}): {config.key_advice()}"
    if kind == "not_found_error" or status == 404:
        hint = f"check the model's name and {config.address_setting}{f' ({words})' if words else ''}"
        return code, None, f"{model} was not found ({shown}): {hint}"
    return code, None, f"{model} {said_by_code(code)} ({shown})" + (f": {words}" if words else "")


def _words(error: anthropic.APIStatusError) -> str:
    """`{"type": "error", "error": {"type": …, "message": …}}`, or what a proxy on the way sent instead."""
    body = error.body
    inner = body.get("error") if isinstance(body, Mapping) else None
    return words_of(inner) or words_of(body)
