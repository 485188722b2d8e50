"""A run folder on a file system that cannot lock files is refused in one sentence, and left as it was."""

import errno
import fcntl
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from toy_catalog import toy_cli

from layersearch.search import store_schema
from layersearch.search.lock import holder


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    assert toy_cli("evolve", "--space", "toy", "--backend", "inline") == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert not list(Path("runs").glob("*")), "as if it had never been asked for"
    return err


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_no_lock_of_the_folder(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, number: int, folder: Path
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    said = refusal(capsys)
    assert "a run must be on a file system that can lock files, but runs/toy-0001/lock is on none" in said
    assert f"({os.strerror(number)}); choose another --runs-dir" in said
    (folder / "lock").write_text("1\n")
    assert holder(folder) is None


def test_no_shared_memory_for_the_log_of_the_store(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite itself opens the file as it would there: without locks, and so without a write-ahead log."""
    connect = sqlite3.connect

    def without(path: Any, **options: Any) -> sqlite3.Connection:
        uri = str(path) if options.pop("uri", False) else f"file:{path}?"
        return connect(f"{uri}&vfs=unix-none", uri=True, **options)

    monkeypatch.setattr(store_schema.sqlite3, "connect", without)
    assert "run.sqlite is on none (SQLite's journal mode is delete, not wal)" in refusal(capsys)


def test_an_error_of_locks_is_told_from_a_failing_disk() -> None:
    for code, says in (
        (sqlite3.SQLITE_IOERR_LOCK, "can lock files"),
        (sqlite3.SQLITE_IOERR_WRITE, "the disk must take"),
    ):
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = code
        assert says in str(store_schema._unusable(Path("x"), error))
