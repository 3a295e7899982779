"""web/stream_tokens.py: what a token says, and to whom it says nothing."""

import time
from typing import Any

import pytest
from itsdangerous import Signer

from shared.ids import new_job_id
from shared.settings import Settings
from tests.support.tenants import SECRET
from web.stream_tokens import Grant, StreamTokens

JOB = new_job_id()
NO_REDIS: Any = None
"""A secret of the settings is all that is needed."""


def tokens(secret: str = SECRET, **settings: object) -> StreamTokens:
    return StreamTokens(NO_REDIS, Settings(token_secret=secret, **settings))  # type: ignore[arg-type]  # validated by pydantic


async def test_a_token_says_which_job_whose_and_until_when() -> None:
    made = await tokens(token_ttl_s=100).make(JOB, "a.b")
    grant = await tokens().read(made.text)
    assert grant == Grant(JOB, "a.b", made.expires_at)
    assert made.expires_at == pytest.approx(time.time() + 100, abs=5)
    assert not grant.expired


async def test_it_stands_in_a_url_as_it_is_and_is_short() -> None:
    made = await tokens().make(JOB, "web")
    assert all(character.isalnum() or character in "-._" for character in made.text)
    assert len(made.text) < 110


async def test_a_shorter_life_can_be_asked_for() -> None:
    made = await tokens().make(JOB, "web", 1)
    assert made.expires_at == pytest.approx(time.time() + 1, abs=5)


async def test_once_its_time_is_over_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    made = await tokens(token_ttl_s=100).make(JOB, "web")
    now = time.time()
    monkeypatch.setattr("web.stream_tokens.time.time", lambda: now + 101)
    grant = await tokens().read(made.text)
    assert grant is not None
    assert grant.expired


async def test_what_was_changed_is_no_token() -> None:
    text = (await tokens().make(JOB, "web")).text
    head, expires_at, tenant, signature = text.split(".")
    other = new_job_id()
    changed = [
        f"lt_{other}.{expires_at}.{tenant}.{signature}",
        f"{head}.{int(expires_at) + 1}.{tenant}.{signature}",
        f"{head}.{expires_at}.batch.{signature}",
        f"{head}.{expires_at}.{tenant}.{signature[:-2]}",
        f"{head}.{expires_at}.{tenant}.",
        f"{head}.{expires_at}.{tenant}",
        "", ".", "lt_", "\u00e9\ufffd",
    ]  # fmt: skip
    assert [await tokens().read(text) for text in changed] == [None] * len(changed)


async def test_another_secret_signs_other_tokens() -> None:
    made = await tokens().make(JOB, "web")
    assert await tokens("t" * 32).read(made.text) is None


async def test_what_the_same_secret_signs_elsewhere_is_no_token() -> None:
    """Another program may sign with it too, and even under the name that itsdangerous gives by itself."""
    text = f"lt_{JOB}.{int(time.time()) + 100}.web"
    assert await tokens().read(Signer(SECRET).sign(text).decode()) is None


async def test_a_secret_is_replaced_without_a_gap() -> None:
    """The last one signs, and all of them are taken."""
    old, new = await tokens().make(JOB, "web"), await tokens(f"{SECRET},{'t' * 32}").make(JOB, "web")
    both = tokens(f"{SECRET},{'t' * 32}")
    assert None not in (await both.read(old.text), await both.read(new.text))
    assert await tokens("t" * 32).read(new.text) is not None
    assert await tokens("t" * 32).read(old.text) is None
