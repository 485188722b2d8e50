"""Encoded rows on disk: found by content, bounded, written whole or not at all."""

import os
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click_tables import OTHER, SCHEMA, TRAIN, write

from layersearch.errors import DataError
from layersearch.spaces.tasks.ctr import cache
from layersearch.spaces.tasks.ctr.arrays import from_arrays, to_arrays
from layersearch.spaces.tasks.ctr.libsvm import read_libsvm_parts
from layersearch.spaces.tasks.ctr.prepare import read_tables


def test_the_cache_is_found_by_content_and_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write(tmp_path)
    first = read_tables(files, SCHEMA, cache=tmp_path / "cache")
    assert isinstance(first.train.ids, np.memmap)
    moved = {part: path.rename(path.with_name("moved-" + path.name)) for part, path in files.items()}
    import layersearch.spaces.tasks.ctr.prepare as module

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_chunks", lambda *_: pytest.fail("read again"))
        again = read_tables(moved, SCHEMA, cache=tmp_path / "cache")
    assert np.array_equal(first.train.ids, again.train.ids)
    moved["train"].write_text(TRAIN + "1,d,x,1,,0\n")
    changed = read_tables(moved, SCHEMA, cache=tmp_path / "cache")
    assert len(changed.train) == 5
    assert sorted(p.name[0] for p in (tmp_path / "cache").iterdir()) != ["."], "no half-written folder is left"
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_rows_are_kept_in_the_cache_of_the_user_or_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    kept = tmp_path / "home" / "layersearch" / "rows"
    before = set(Path(tempfile.gettempdir()).glob("layersearch-*"))
    for _ in range(2):
        data = read_tables(write(tmp_path), SCHEMA)
        assert isinstance(data.train.ids, np.memmap)
        assert Path(str(data.train.ids.filename)).parent.parent == kept
    assert len(list(kept.iterdir())) == 1
    assert set(Path(tempfile.gettempdir()).glob("layersearch-*")) == before
    # Where it cannot be used, rows are in a folder that goes with the process.
    (tmp_path / "file").write_text("")
    code = (
        "import sys; from pathlib import Path; from layersearch.spaces.tasks.ctr.prepare import read_tables;"
        "from layersearch.spaces.tasks.ctr.schema import Schema;"
        "files = {p: Path(sys.argv[1]) / f'{p}.csv' for p in ('train', 'validation', 'test')};"
        "data = read_tables(files, Schema.parse({'label': 'click', 'columns': ['item', 'city']}));"
        "print(data.train.ids.filename, len(data.train))"
    )
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path / "file")}
    command = [sys.executable, "-c", code, str(tmp_path)]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout.split()
    assert told[1] == "4"
    assert not Path(told[0]).parent.parent.exists()


def test_a_disk_without_room_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=100))
    with pytest.raises(DataError, match=r"encoded rows must be written to .*\(No space left on device\); make room"):
        read_tables(write(tmp_path), SCHEMA, cache=tmp_path / "c")
    assert not list((tmp_path / "c").iterdir())


def test_a_cache_of_rows_is_bounded_and_keeps_what_was_used_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(folder: Path) -> dict[str, int]:
        np.save(folder / "x.npy", np.arange(1000))
        return {}

    folder = tmp_path / "rows"
    monkeypatch.setattr(cache, "CACHE_LIMIT_BYTES", 25_000)
    mapped = cache.cached(folder, "a", make)[0]["x"]
    cache.cached(folder, "b", make)
    left = folder / ".a.killed"
    left.mkdir()
    for key, when in (("a/done.json", 1), ("b/done.json", 2), (".a.killed", 1)):
        os.utime(folder / key, (when, when))
    cache.cached(folder, "c", make)
    os.utime(folder / "b/done.json", (2, 2))
    cache.cached(folder, "a", make)  # used
    cache.cached(folder, "d", make)
    assert {path.name for path in folder.iterdir()} == {"a", "c", "d"}
    monkeypatch.setattr(cache, "CACHE_LIMIT_BYTES", 10)
    cache.cached(folder, "e", make)
    assert {path.name for path in folder.iterdir()} == {"e"}
    assert mapped.sum() == 499_500, "what was removed stays mapped"


@pytest.mark.parametrize("name", ["done.json", "x.npy"])
def test_rows_that_were_not_all_written_are_made_again(tmp_path: Path, name: str) -> None:
    def make(folder: Path) -> dict[str, int]:
        np.save(folder / "x.npy", np.arange(3))
        return {"n": 3}

    for size in (0, 100):
        cache.cached(tmp_path, "a", make)
        os.truncate(tmp_path / "a" / name, size)
        arrays, facts = cache.cached(tmp_path, "a", make)
        assert arrays["x"].tolist() == [0, 1, 2]
        assert facts == {"n": 3}
    (tmp_path / "a" / "done.json").unlink()
    cache.cached(tmp_path, "a", make)
    assert (tmp_path / "a" / "done.json").exists()


def test_many_use_a_cache_at_once_that_holds_one_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "CACHE_LIMIT_BYTES", 10)

    def use(n: int) -> bool:
        def make(folder: Path) -> dict[str, int]:
            np.save(folder / "x.npy", np.full(1000, n % 3))
            np.save(folder / "y.npy", np.full(1000, n % 3))
            return {"n": n % 3}

        arrays, facts = cache.cached(tmp_path, str(n % 3), make)
        return (
            facts == {"n": n % 3} and sorted(arrays) == ["x", "y"] and all((arrays[k] == n % 3).all() for k in arrays)
        )

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(use, range(90)))
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_content_of_files_is_noted_and_asked_for(tmp_path: Path) -> None:
    files = write(tmp_path)
    data = read_tables(files, SCHEMA, cache=tmp_path / "c")
    assert from_arrays(to_arrays(data)).content == data.content
    assert read_tables(files, SCHEMA, cache=tmp_path / "c", content=data.content).content == data.content
    other = read_tables(files, replace(SCHEMA, missing=("", "x")), cache=tmp_path / "c", content=data.content)
    assert other.content == data.content, "it is that of the files, not of how they are read"
    files["test"].write_text(OTHER.replace("zzz", "yyy"))
    with pytest.raises(DataError, match=r"test.csv must be as the run began with, and was changed since") as caught:
        read_tables(files, SCHEMA, cache=tmp_path / "c", content=data.content)
    assert "\n" not in str(caught.value)
    rows = {part: tmp_path / part for part in files}
    for path in rows.values():
        path.write_text("1 3:1 10:1\n0 4:1 10:1\n")
    first = read_libsvm_parts(rows)
    assert read_libsvm_parts(rows, content=first.content).content == first.content
    rows["train"].write_text("1 3:1 10:1\n0 5:1 10:1\n")
    with pytest.raises(DataError, match="was changed since"):
        read_libsvm_parts(rows, content=first.content)
