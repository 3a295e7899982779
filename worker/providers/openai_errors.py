"""What goes wrong at an OpenAI-compatible server, in the words of protocol 4.1. No I/O.

A failure reaches this process in five shapes, and the openai SDK wraps only some of them:

    an answer with a status         openai.APIStatusError                  by slug where it says more, else by status
    an error event in mid-stream    openai.APIError without a status       by its `code`, then its `type`
    silence                         openai.APITimeoutError, httpx2's own   timeout
    a broken connection             openai.APIConnectionError, httpx2's    connection
    bytes that are no event         JSONDecodeError, UnicodeDecodeError    connection

The messages are for the person who asked: one sentence that names the model, the status and, for what they can mend, what to
do. They never hold a key, even where the server repeats it (OpenAI's own 401 does, half masked).
"""

import json
from collections.abc import Mapping
from typing import Final

import httpx2
import openai

from shared.errors import ErrorCode, GenerationFailed
from shared.providers import ProviderConfig
from worker.providers.failure_text import broken_connection, code_of_status, retry_after_s, said_by_code, sentence, words_of
from worker.providers.key import bare_key

UPSTREAM_ERRORS: Final = (
    openai.OpenAIError,
    httpx2.HTTPError,  # leaks where the SDK reads the body of an error answer
    httpx2.StreamError,  # the client was closed under a stream
    httpx2.InvalidURL,  # of a redirect
    OSError,  # TLS, and what the transport did not wrap
    json.JSONDecodeError,
    UnicodeDecodeError,
)
"""Everything that opening or reading a stream raises because of the other side."""

_BY_SLUG: Final[Mapping[str, ErrorCode]] = {
    "insufficient_quota": "rate_limit",
    "billing_hard_limit_reached": "rate_limit",
    "billing_not_active": "rate_limit",
    "rate_limit_exceeded": "rate_limit",
    "rate_limit_error": "rate_limit",
    "requests": "rate_limit",  # `type` of OpenAI's 429: which of the limits it was
    "tokens": "rate_limit",
    "content_filter": "content_filter",
    "content_policy_violation": "content_filter",
    "invalid_api_key": "auth",
    "authentication_error": "auth",
    "permission_error": "auth",
    "context_length_exceeded": "bad_request",
    "model_not_found": "bad_request",
    "invalid_request_error": "bad_request",
    "badrequesterror": "bad_request",  # vLLM names its exception classes
    "timeout": "timeout",
    "timeout_error": "timeout",
    # `error.code` of a failed response (Responses API); what is not here is the server's own trouble
    "invalid_prompt": "bad_request",
    "data_residency_mismatch": "bad_request",
    "invalid_image": "bad_request",
    "invalid_image_format": "bad_request",
    "invalid_image_mode": "bad_request",
    "invalid_image_url": "bad_request",
    "invalid_base64_image": "bad_request",
    "image_too_large": "bad_request",
    "image_too_small": "bad_request",
    "image_parse_error": "bad_request",
    "image_file_too_large": "bad_request",
    "image_file_not_found": "bad_request",
    "unsupported_image_media_type": "bad_request",
    "empty_image_file": "bad_request",
    "failed_to_download_image": "bad_request",
    "image_content_policy_violation": "content_filter",
    "bio_policy": "content_filter",
    "misalignment_policy_violation": "content_filter",
}
"""By an error's `code` or `type`, lower case. Any other slug in mid-stream is the server's own trouble: `overloaded`."""

_OUT_OF_CREDIT: Final = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active"})
_SAYS_MORE_THAN_STATUS: Final = _OUT_OF_CREDIT | {"content_filter", "content_policy_violation"}


def failure_of(error: Exception, model: str, config: ProviderConfig, host: str = "") -> GenerationFailed:
    """One of `UPSTREAM_ERRORS` as the attempt's failure.

    Args:
        model: the model's whole id, as `openai/gpt-4o-mini`.
        config: its key must not show, wherever it stands it becomes `[key]`; and it knows which settings to look at.
        host: where the request went, for a connection that never came about.
    """
    if isinstance(error, openai.APIConnectionError | httpx2.HTTPError | httpx2.StreamError | OSError):
        (code, said), retryable = _of_transport(error, model, host), None
    elif isinstance(error, openai.APIError):
        code, retryable, said = _of_answer(error, model, config)
    else:
        code, retryable, said = "connection", None, f"{model} sent what is not an event stream ({type(error).__name__})"
    asked_s = retry_after_s(error.response.headers) if isinstance(error, openai.APIStatusError) else None
    return GenerationFailed(code, sentence(said, bare_key(config)), retryable=retryable, retry_after_s=asked_s)


def _of_transport(error: Exception, model: str, host: str) -> tuple[ErrorCode, str]:
    cause = (
        error.__cause__ if isinstance(error, openai.APIConnectionError) and isinstance(error.__cause__, Exception) else error
    )
    return broken_connection(
        cause,
        model,
        host,
        unreachable=isinstance(cause, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.UnsupportedProtocol),
        timed_out=isinstance(error, openai.APITimeoutError | httpx2.TimeoutException | TimeoutError),
    )


def _of_answer(error: openai.APIError, model: str, config: ProviderConfig) -> tuple[ErrorCode, bool | None, str]:
    """Of an answer with a status, or an error event: code, `retryable` where it is not the code's own, and the sentence."""
    status = error.status_code if isinstance(error, openai.APIStatusError) else None
    slugs = [slug.lower() for slug in (error.code, error.type) if isinstance(slug, str)]
    code = _code_of(status, slugs)
    shown = " ".join(str(part) for part in (status, *slugs[:1]) if part) or "in mid-stream"
    detail = words_of(error.body)
    if status == 402 or not _OUT_OF_CREDIT.isdisjoint(slugs):
        return (
            code,
            False,
            f"{model} has no quota left ({shown}): check plan and billing of the account that the key belongs to",
        )
    if code == "auth" and status != 403:
        # The server's own words are left out: they repeat the key, masked by halves at best.
        return code, None, f"{model} refused the key ({shown}): {config.key_advice()}"
    if status == 404:
        hint = f"check the model's name and {config.address_setting}, which mostly ends in /v1"
        return code, None, f"{model} was not found ({shown}): {detail or hint}"
    return code, None, f"{model} {said_by_code(code)} ({shown})" + (f": {detail}" if detail else "")


def _code_of(status: int | None, slugs: list[str]) -> ErrorCode:
    if status is None:
        known = next((_BY_SLUG[slug] for slug in slugs if slug in _BY_SLUG), None)
        number = next((int(slug) for slug in slugs if slug.isdecimal()), None)  # some servers give the status as `code`
        return known or ("overloaded" if number is None else code_of_status(number))
    telling = next((slug for slug in slugs if slug in _SAYS_MORE_THAN_STATUS), None)
    return _BY_SLUG[telling] if telling else code_of_status(status)
