"""The cache of built kernels: shared by processes, proof against damage, bounded, and clear about what is missing."""

import ctypes
import errno
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

from layersearch.errors import KernelError
from layersearch.kernels.codegen import _compile

SOURCE = "float answer(void) { return 42.0f; }\n"

pytestmark = pytest.mark.skipif(isinstance(_compile.find_compiler(), str), reason="no C compiler")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return _compile.cache_folder()


def answer(library: ctypes.CDLL) -> float:
    library.answer.restype = ctypes.c_float
    return float(library.answer())


def compiler() -> _compile.Compiler:
    found = _compile.find_compiler()
    assert not isinstance(found, str)
    return found


def test_a_second_build_is_a_hit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert answer(_compile.library(SOURCE, "e/1")) == 42
    monkeypatch.setattr(_compile, "_run", lambda command: pytest.fail("compiled again"))
    assert answer(_compile.library(SOURCE, "e/1")) == 42
    assert len(list(folder.iterdir())) == 1


@pytest.mark.parametrize("changed", ["source", "emitter", "version", "flags", "processor"])
def test_the_key_holds_all_that_the_binary_depends_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch, changed: str
) -> None:
    from dataclasses import replace

    first = _compile.build(SOURCE, "e/1", compiler(), folder)
    source = SOURCE + "\n" if changed == "source" else SOURCE
    emitter = "e/2" if changed == "emitter" else "e/1"
    other = compiler()
    if changed == "version":
        other = replace(other, version="another")
    if changed == "flags":
        other = replace(other, flags=(*other.flags, "-g0"))
    if changed == "processor":
        monkeypatch.setattr(_compile, "processor", lambda: "another")
    assert _compile.build(source, emitter, other, folder).name.split("-")[0] != first.name.split("-")[0]


@pytest.mark.parametrize("damage", [b"", b"not a library"], ids=["cut", "overwritten"])
def test_a_damaged_entry_is_built_again(folder: Path, damage: bytes) -> None:
    path = _compile.build(SOURCE, "e/1", compiler(), folder)
    path.unlink()
    path.write_bytes(damage)
    assert answer(_compile.library(SOURCE, "e/1")) == 42
    assert all(p.read_bytes() != damage for p in folder.glob("*.so"))


@pytest.mark.slow
def test_four_processes_build_one_key_at_a_time(folder: Path) -> None:
    code = (
        "import sys, ctypes; from layersearch.kernels.codegen import _compile; sys.stdin.readline();"
        f"l = _compile.library({SOURCE!r}, 'e/1'); l.answer.restype = ctypes.c_float; print(l.answer())"
    )
    started = [
        subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    said: list[str] = []
    threads = [threading.Thread(target=lambda p=p: said.append(p.communicate("go\n")[0])) for p in started]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert said == ["42.0\n"] * 4
    assert [p.returncode for p in started] == [0] * 4
    assert {path.suffix for path in folder.iterdir()} == {".so"}  # nothing half-built is left


def test_the_cache_is_bounded_and_the_newest_entries_stay(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = _compile.build(SOURCE, "e/1", compiler(), folder)
    size = first.stat().st_size
    monkeypatch.setattr(_compile, "CACHE_LIMIT_BYTES", 4 * size)
    for k in range(2, 6):
        path = _compile.build(SOURCE, f"e/{k}", compiler(), folder)
        os.utime(path, (k, k))
    left = list(folder.glob("*.so"))
    assert sum(p.stat().st_size for p in left) <= 4 * size
    assert path in left


def test_what_a_killed_build_left_is_removed(folder: Path) -> None:
    old, new = folder / "build-old", folder / "build-new"
    for left in (old, new):
        left.mkdir()
    os.utime(old, (1, 1))
    _compile.build(SOURCE, "e/1", compiler(), folder)
    assert not old.exists()
    assert new.exists()


def test_a_folder_that_others_can_write_to_is_not_used(folder: Path) -> None:
    folder.chmod(folder.stat().st_mode | stat.S_IWOTH)
    assert _compile.cache_folder() != folder
    folder.chmod(0o700)
    assert _compile.cache_folder() == folder


def test_a_cache_that_cannot_be_made_is_replaced_by_a_folder_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert answer(_compile.library(SOURCE, "e/1")) == 42


def test_a_full_cache_is_replaced_by_a_folder_of_the_process(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The source may not fit, or, where the compiler says nothing but its own words, the library."""
    makes = tempfile.TemporaryDirectory

    def full(dir: Path | None = None, **options: Any) -> Any:
        if dir == folder:
            raise OSError(errno.ENOSPC, "no space left")
        return makes(dir=dir, **options)

    with monkeypatch.context() as source:
        source.setattr(tempfile, "TemporaryDirectory", full)
        assert answer(_compile.library(SOURCE, "e/1")) == 42
        with pytest.raises(KernelError, match=f"must be written to {folder}.*no space left.*; make room"):
            _compile.build(SOURCE, "e/1", compiler(), folder)
    usage = shutil.disk_usage
    monkeypatch.setattr(
        shutil, "disk_usage", lambda path: usage(path)._replace(free=0) if path == folder else usage(path)
    )
    with pytest.raises(KernelError, match="must be written to"):
        _compile.build("this is not C\n", "e/1", compiler(), folder)
    with pytest.raises(KernelError, match="must build a kernel, and says"):
        _compile.library("this is not C\n", "e/1")
    assert list(folder.iterdir()) == []


def test_what_the_compiler_says_is_in_the_error(folder: Path) -> None:
    with pytest.raises(KernelError, match=r"must build a kernel, and says: .*error"):
        _compile.library("this is not C\n", "e/1")
    assert list(folder.iterdir()) == []


def test_cc_names_the_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "cc -pipe")
    assert compiler().command[1:] == ("-pipe",)
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "CC names 'no-such-compiler'" in str(_compile.find_compiler())
    monkeypatch.setenv("CC", "'")
    assert "not a command" in str(_compile.find_compiler())
    monkeypatch.setenv("CC", "false")
    assert "does not work" in str(_compile.find_compiler())
    monkeypatch.setenv("CC", "")
    monkeypatch.setenv("PATH", "")
    assert "no C compiler" in str(_compile.find_compiler())
