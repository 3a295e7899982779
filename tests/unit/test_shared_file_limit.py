"""Open files are readers: how many fit, and what is said where they are few."""

import resource

import pytest

from shared.errors import ConfigurationError
from shared.file_limit import few_readers, raise_file_limit, readers_that_fit
from shared.settings import Settings


def test_the_soft_limit_becomes_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, hard), hard))
        assert raise_file_limit() == hard
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_what_redis_needs_is_no_readers() -> None:
    assert readers_that_fit(1_024, Settings(redis_connections=64)) == 896
    assert readers_that_fit(1_024, Settings(redis_connections=64, durable_submit=True)) == 832
    assert readers_that_fit(64, Settings()) == 0


def test_few_are_told_of_with_what_to_do_and_many_are_not() -> None:
    assert few_readers(1_048_576, Settings()) is None
    line = few_readers(1_024, Settings())
    assert line is not None
    assert line.startswith("this system allows 1,024 open files, so 896 readers fit into a web process: raise the hard limit")


async def test_a_web_process_says_so_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    from web import main

    said: list[str] = []
    monkeypatch.setattr(main, "raise_file_limit", lambda: 2_048)
    monkeypatch.setattr(main.log, "warning", said.append, raising=False)
    with pytest.raises(ConfigurationError, match="Redis does not answer"):
        await main.serve(Settings(port=0, redis_url="redis://127.0.0.1:1/0"))
    assert [line[:41] for line in said] == ["this system allows 2,048 open files, so 1"]
