"""API keys: whose calls a server takes. It knows each by its SHA-256 alone; the key itself is with its holder. No I/O.

    web:5f0c…64 hex digits     an entry of LASTEVENT_API_KEYS: the name, which is the tenant, and the digest of its key

A key holds 256 random bits, so that its digest can be told to anybody: nothing finds the key to it.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from pydantic import SecretStr

PREFIX: Final = "le_"
"""What every key begins with: people and secret scanners know it by that."""

NAME_RULE: Final = "1 to 64 letters, digits, `.`, `_` or `-`, a letter or digit first"

_RIGHT: Final = "name:sha256, the second half 64 hex digits, as `lastevent keys new NAME` prints it"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-fA-F]{64}")


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as the server knows it. Two may have one name: so a key is replaced without a gap."""

    name: str
    digest: SecretStr
    """SHA-256, 64 hex digits in lower case. No secret, but nobody needs to see it in a log."""

    @property
    def entry(self) -> str:
        """As LASTEVENT_API_KEYS lists it."""
        return f"{self.name}:{self.digest.get_secret_value()}"


def new_key(name: str) -> tuple[str, ApiKey]:
    """A key for its holder, and what the server knows of it.

    Raises:
        ValueError: the name cannot be a tenant's.
    """
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"a name has {NAME_RULE}")
    key = PREFIX + secrets.token_urlsafe(32)
    return key, ApiKey(name, SecretStr(digest_of(key.encode())))


def digest_of(key: bytes) -> str:
    return hashlib.sha256(key).hexdigest()


def parse_entries(entries: Iterable[object]) -> tuple[ApiKey, ...]:
    """The keys of a list `name:sha256`.

    Raises:
        ValueError: names the entry by its place, and never repeats it: it may be a key in the wrong place.
    """
    found: list[ApiKey] = []
    for place, entry in enumerate(entries, 1):
        key = entry if isinstance(entry, ApiKey) else _parse(place, entry.strip() if isinstance(entry, str) else "")
        doubled = next((i for i, other in enumerate(found, 1) if other.digest == key.digest), None)
        if doubled is not None:
            raise ValueError(f"entry {place} is the key of entry {doubled}: it cannot have two names, nor be listed twice")
        found.append(key)
    return tuple(found)


def _parse(place: int, entry: str) -> ApiKey:
    name, colon, digest = entry.partition(":")
    if PREFIX in entry and _DIGEST.fullmatch(digest) is None:
        raise ValueError(f"entry {place} holds the key itself; it must be {_RIGHT}")
    if not colon or _DIGEST.fullmatch(digest) is None:
        raise ValueError(f"entry {place} must be {_RIGHT}")
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"entry {place}: a name has {NAME_RULE}")
    return ApiKey(name, SecretStr(digest.lower()))


def tenant_of(keys: Sequence[ApiKey], shown: bytes) -> str | None:
    """The name of the key that was shown; None where it is none of these. Takes as long whichever it is, and if it is none."""
    digest = digest_of(shown)
    tenant = None
    for key in keys:
        if hmac.compare_digest(key.digest.get_secret_value(), digest):
            tenant = key.name
    return tenant
