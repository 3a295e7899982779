"""Two tenants with a key each, and a client of each: for tests of a server that has keys."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx2
from pydantic import SecretStr

from shared.api_keys import ApiKey, digest_of

KEYS: Final = {"web": "le_" + "w" * 43, "batch": "le_" + "b" * 43}
"""The keys themselves, by tenant."""

API_KEYS: Final = tuple(ApiKey(name, SecretStr(digest_of(key.encode()))) for name, key in KEYS.items())
"""What the server knows of them: for `make_settings(api_keys=API_KEYS)`."""

SECRET: Final = "s" * 32
"""For `token_secret`: a test that has it can sign what it likes."""


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@asynccontextmanager
async def tenant_client(base_url: str, tenant: str | None) -> AsyncIterator[httpx2.AsyncClient]:
    """A client that shows the tenant's key with every call; None shows none."""
    headers = bearer(KEYS[tenant]) if tenant else {}
    async with httpx2.AsyncClient(base_url=base_url, headers=headers, timeout=10) as client:
        yield client
