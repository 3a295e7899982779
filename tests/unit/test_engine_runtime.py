"""The process around the models."""

import asyncio
import gc
import os
import threading
from pathlib import Path

import pytest

from worker.engine import runtime


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in (*runtime._ENVIRONMENT, "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return monkeypatch


@pytest.mark.usefixtures("environment")
def test_nothing_goes_to_the_hub_unless_a_configured_model_may() -> None:
    runtime.prepare(offline=False)
    assert "HF_HUB_OFFLINE" not in os.environ
    runtime.prepare(offline=True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_what_the_operator_has_set_stays(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("TRANSFORMERS_VERBOSITY", "debug")
    runtime.prepare(offline=True)
    assert os.environ["TRANSFORMERS_VERBOSITY"] == "debug"


def test_the_collector_rests_and_comes_back_also_after_a_failure() -> None:
    def fails() -> None:
        with runtime.no_collections():
            assert not gc.isenabled()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with runtime.no_collections():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.unfreeze()


def test_what_the_first_scan_of_the_models_found_is_what_the_second_would_find() -> None:
    runtime.import_transformers()
    import transformers
    from transformers.utils.import_utils import define_import_structure

    models = Path(transformers.__file__).parent / "models"
    second = define_import_structure(str(models / "__init__.py"))
    assert runtime._without_prefix(define_import_structure(models, prefix="models")) == second
    assert sum(map(len, second.values())) > 1_000


async def test_a_daemon_threads_result_and_failure_reach_who_waits() -> None:
    def work(value: int) -> tuple[int, bool]:
        return 10 // value, threading.current_thread().daemon

    assert await runtime.in_daemon_thread(work, 5) == (2, True)
    with pytest.raises(ZeroDivisionError):
        await runtime.in_daemon_thread(work, 0)


async def test_who_waits_for_a_daemon_thread_can_be_cancelled() -> None:
    release = threading.Event()
    waiting = asyncio.create_task(runtime.in_daemon_thread(release.wait))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    release.set()
