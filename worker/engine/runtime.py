"""The process around the models: what must be set before torch is imported, and how many threads it gets.

Nothing here is undone: a worker of the local lane does nothing else.
"""

import asyncio
import gc
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_ENVIRONMENT: Final = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    "TQDM_DISABLE": "1",  # transformers' GGUF reader draws its bar itself
    "TOKENIZERS_PARALLELISM": "false",  # one text at a time; its pool would only compete with the forward passes
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages: each token reads all weights, and their page tables with them (decisions/0041)
}


def prepare(*, offline: bool) -> None:
    """Sets the environment that torch, transformers and the hub's client read when they are imported.

    `offline`: no configured model may be downloaded, so nothing at all may go to the hub. What the operator has set stays.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if offline:
        os.environ["HF_HUB_OFFLINE"] = "1"


def set_threads() -> int:
    """Gives torch all CPUs this process may use but one, unless OMP_NUM_THREADS says otherwise. Returns how many.

    A forward pass is hundreds of short parallel regions, each as slow as its slowest thread. With a thread on every CPU, one
    busy neighbour (Redis, web, a second worker) costs four fifths of the speed; with one CPU left free, little or a half
    (decisions/0014). The affinity mask counts, not the machine: in a container torch would take all of the host's.
    """
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(min(max(1, len(os.sched_getaffinity(0)) - 1), MAX_THREADS))
    return int(torch.get_num_threads())


MAX_THREADS: Final = 16
"""A decode step moves the weights through memory once; more threads than this only wait for each other."""


def import_transformers() -> None:
    """Imports transformers and its package of models, reading the heads of its 3,300 model files once instead of twice.

    Both imports scan the same folder, to the same result but for a prefix; the second scan is a tenth of a start. Where
    another release does it in another way, this changes nothing.
    """
    import transformers
    from transformers.utils import import_utils

    scan = getattr(import_utils, "define_import_structure", None)
    models = Path(transformers.__file__).parent / "models"
    if scan is None or not hasattr(scan, "cache_info"):
        return

    def scanned(path: str, prefix: str | None = None) -> Any:
        if prefix is not None or Path(path) != models / "__init__.py":
            return scan(path, prefix)
        misses = scan.cache_info().misses
        found = scan(models, prefix="models")
        if scan.cache_info().misses > misses:
            return scan(path)  # the first import no longer asked for this: then it is no second scan
        return _without_prefix(found)

    import_utils.define_import_structure = scanned
    try:
        import transformers.models
    finally:
        import_utils.define_import_structure = scan


def _without_prefix(structure: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    return {
        backends: {name.removeprefix("models."): value for name, value in names.items() if name.startswith("models.")}
        for backends, names in structure.items()
    }


@contextmanager
def no_collections() -> Iterator[None]:
    """Holds the garbage collector while imports and weights come in, and then exempts them: they stay for good.

    Importing makes a million objects that all survive; walking them again and again is a sixth of the start.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        if was_enabled:
            gc.enable()


async def in_daemon_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`asyncio.to_thread` for what may take minutes: its thread does not keep a process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[Any], None], value: object) -> None:
        if not future.done():  # cancelled meanwhile
            outcome(value)

    def work() -> None:
        try:
            outcome, value = future.set_result, function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  # it is raised where it is awaited
            outcome, value = future.set_exception, error  # type: ignore[assignment]
        try:
            loop.call_soon_threadsafe(settle, outcome, value)
        except RuntimeError:  # the event loop is closed: nobody waits any more
            return

    threading.Thread(target=work, name=function.__name__, daemon=True).start()
    return await future
