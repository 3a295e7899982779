"""Whose a page of the batch's cache is. Transformers knows one by what it holds alone, and would share it with anybody.

    name of a request ──tenant──▶ salt ──▶ its first ids, where pages are kept and looked up ──▶ hash of page 1 ──▶ of page 2 …

Each page's hash begins with that of the page before: what sets the first ones apart sets all apart.
"""

import copy
import hashlib
import secrets
from array import array
from collections.abc import Sequence
from functools import cache
from operator import xor
from typing import Any, Final

from transformers.generation.continuous_batching.cache import PagedAttentionCache

SALT_BYTES: Final = 32
"""As many as 8 ids have. Two tenants' salts differ beyond the bits of any vocabulary, so no ids of one look like another's."""

_SECRET: Final = secrets.token_bytes(32)
"""Of this process, so that nobody can work out ids whose hash is another tenant's."""


class TenantCache(PagedAttentionCache):  # type: ignore[misc]  # transformers is Any to mypy
    """Shares pages within a tenant only. Made of a cache that is there already: transformers says which class it takes."""

    @staticmethod
    def keep_apart(cache: Any) -> None:
        """From now on. Pages that the cache holds already are found by nobody."""
        cache.__class__ = TenantCache

    def search_prefix_match(self, request_id: str, prompt_ids: list[int]) -> int:
        return int(super().search_prefix_match(request_id, _salted(prompt_ids, tenant_of(request_id))))

    def mark_complete_blocks(self, state: Any, complete_blocks: dict[str, int]) -> None:
        if not complete_blocks:
            return
        salted = copy.copy(state)
        salted.initial_tokens = _salted([*state.initial_tokens, *state.generated_tokens], tenant_of(state.request_id))
        salted.generated_tokens = []
        super().mark_complete_blocks(salted, complete_blocks)


def request_name(job_id: str, number: int, tenant: str) -> str:
    """What a request is called in the batch: all that the cache is told of it besides its ids."""
    return f"{job_id}#{number}/{tenant}"


def tenant_of(name: str) -> str:
    """Whose the request of this name is; neither a job's id nor a tenant's name has a slash."""
    return name.partition("/")[2]


def _salted(ids: Sequence[int], tenant: str) -> list[int]:
    salt = _salt(tenant)
    return [*map(xor, ids, salt), *ids[len(salt) :]]


@cache
def _salt(tenant: str) -> tuple[int, ...]:
    """Kept for each tenant; they are as many as the server has keys."""
    return tuple(array("i", hashlib.blake2b(tenant.encode(), key=_SECRET, digest_size=SALT_BYTES).digest()))
