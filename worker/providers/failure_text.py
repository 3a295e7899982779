"""What every provider's failures have in common: codes by HTTP status, sentences without a key, Retry-After. No I/O, no SDK."""

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time
from typing import Final

from shared.errors import ErrorCode

_BY_STATUS: Final[Mapping[int, ErrorCode]] = {
    401: "auth",
    402: "rate_limit",  # no credit left
    403: "auth",
    408: "timeout",
    409: "overloaded",  # OpenAI: a lock that was not got in time
    425: "overloaded",
    429: "rate_limit",
    501: "unsupported",
}
"""Other 4xx are `bad_request`, other 5xx `overloaded`: `connection` is kept for what no server answered."""

_KEY_LIKE: Final = re.compile(r"\bsk-[\w*.-]{4,}|(?<=Bearer )\S+", re.IGNORECASE)
_SHORTEST_KEY: Final = 4
"""Shorter ones (`x`, for servers that look at none) are no secret, and would be found inside words."""
_MESSAGE_LIMIT: Final = 400
"""Characters; some servers send a whole stack trace."""


def code_of_status(status: int) -> ErrorCode:
    """The code of an answer about which nothing but its status is known."""
    return _BY_STATUS.get(status, "overloaded" if status >= 500 else "bad_request")


def said_by_code(code: ErrorCode) -> str:
    """What a model did, as in "openai/m limits the rate (429)"."""
    return {
        "auth": "denied access",
        "bad_request": "refused the request",
        "content_filter": "refused the content",
        "rate_limit": "limits the rate",
        "unsupported": "cannot do this",
        "timeout": "timed out",
    }.get(code, "failed")


def broken_connection(cause: Exception, model: str, host: str, *, unreachable: bool, timed_out: bool) -> tuple[ErrorCode, str]:
    """Code and sentence of a failure that no server answered.

    Args:
        host: where the request went, for a connection that never came about (`unreachable`).
    """
    code: ErrorCode = "timeout" if timed_out else "connection"
    why = one_line(str(cause)) or type(cause).__name__
    if unreachable:
        return code, f"{model} could not be reached at {host or 'its address'} ({why})"
    if timed_out:
        return code, f"{model} sent nothing for too long ({type(cause).__name__})"
    return code, f"The connection to {model} broke ({why})"


def sentence(text: str, key: str = "") -> str:
    """`text` as the message of a failure: without the key, of bounded length, with its full stop.

    Scrubbed before it is cut: half a key is not found any more.
    """
    text = scrub(text, key)
    return (text if len(text) <= _MESSAGE_LIMIT else text[:_MESSAGE_LIMIT] + "…") + "."


def scrub(text: str, key: str = "") -> str:
    """`text` without the key, in whatever case it is repeated, and without anything that looks like one."""
    if len(key) >= _SHORTEST_KEY:
        text = re.sub(re.escape(key), "[key]", text, flags=re.IGNORECASE)
    return _KEY_LIKE.sub("[key]", text)


def one_line(text: str) -> str:
    """On one line, without its full stop."""
    return " ".join(text.split()).rstrip(".")


def words_of(body: object) -> str:
    """The server's own words in the body of an answer; empty where it had none, or sent a page of HTML."""
    if isinstance(body, Mapping):
        words = body.get("message") or body.get("detail")
        return one_line(words) if isinstance(words, str) else ""
    if isinstance(body, str):
        return "" if body.lstrip().startswith("<") else one_line(body)
    return ""


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """Seconds that `Retry-After` asks for, whichever of its forms came (RFC 9110, and OpenAI's milliseconds)."""
    raw_ms, raw = headers.get("retry-after-ms", ""), headers.get("retry-after", "")
    for text, unit_s in ((raw_ms, 0.001), (raw, 1.0)):
        if re.fullmatch(r"\d+(\.\d+)?", text.strip()):
            return float(text) * unit_s
    try:
        return max(0.0, parsedate_to_datetime(raw).timestamp() - time())
    except (ValueError, TypeError):  # not a date either: as good as not sent
        return None
