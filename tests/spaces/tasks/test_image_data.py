"""Data sets: read exactly as published, or refused with one sentence; a pickle never gets to run anything."""

import gzip
import hashlib
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from layersearch.errors import DataError, UnknownNameError
from layersearch.spaces.tasks.images import cifar
from layersearch.spaces.tasks.images.data import IMAGE_SETS, from_arrays, load_images, to_arrays

N = 20
FILES = [*cifar.TRAIN_FILES, cifar.TEST_FILE]


@pytest.fixture
def few_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "RECORDS", N)


def _batch(i: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(i)
    return rng.integers(0, 256, (N, 3072), dtype=np.uint8), np.arange(N) % 10


def _write_binary(root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir()
    for i, name in enumerate(FILES):
        x, y = _batch(i)
        (folder / f"{name}.bin").write_bytes(np.concatenate([y[:, None].astype(np.uint8), x], axis=1).tobytes())
    return folder


def _write_python(root: Path, protocol: int = 4, **changes: Any) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir()
    for i, name in enumerate(FILES):
        x, y = _batch(i)
        batch = {b"data": x, b"labels": y.tolist(), b"batch_label": b"fake", **changes}
        (folder / name).write_bytes(pickle.dumps(batch, protocol=protocol))
    return folder


def _write_idx(root: Path, folder: str, packed: bool) -> Path:
    place = root / folder
    place.mkdir()
    opener: Callable[..., Any] = gzip.open if packed else open
    for prefix, n in (("train", 30), ("t10k", 10)):
        pixels = np.random.default_rng(n).integers(0, 256, (n, 28, 28), dtype=np.uint8)
        suffix = ".gz" if packed else ""
        with opener(place / f"{prefix}-images-idx3-ubyte{suffix}", "wb") as file:
            file.write(struct.pack(">4i", 2051, n, 28, 28) + pixels.tobytes())
        with opener(place / f"{prefix}-labels-idx1-ubyte{suffix}", "wb") as file:
            file.write(struct.pack(">2i", 2049, n) + (np.arange(n) % 10).astype(np.uint8).tobytes())
    return place


def test_digits_need_no_files_and_are_the_same_each_time() -> None:
    data, again = load_images("digits"), load_images("digits", Path("nowhere"))
    assert data.train_x.shape == (1438, 1, 16, 16)
    assert data.test_x.shape == (359, 1, 16, 16)
    assert data.train_x.dtype == data.test_x.dtype == np.uint8
    assert data.train_y.dtype == np.int64
    assert data.train_x.max() > 250
    np.testing.assert_array_equal(data.train_x, again.train_x)
    share = np.bincount(data.test_y) / np.bincount(np.concatenate([data.train_y, data.test_y]))
    assert share.min() > 0.19
    assert share.max() < 0.21


def test_digits_are_upsampled_bilinearly() -> None:
    import torch
    from sklearn.datasets import load_digits

    source = torch.from_numpy(load_digits().images)[:, None]
    expected = torch.nn.functional.interpolate(source, scale_factor=2, mode="bilinear") * (255 / 16)
    data = load_images("digits")
    found = {image.tobytes() for image in np.concatenate([data.train_x, data.test_x])}
    assert found == {image.tobytes() for image in expected.round().to(torch.uint8).numpy()}


@pytest.mark.usefixtures("few_records")
def test_both_layouts_of_cifar_give_the_same_arrays(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    _write_binary(tmp_path / "a")
    _write_python(tmp_path / "b")
    one, two = load_images("cifar10", tmp_path / "a"), load_images("cifar10", tmp_path / "b")
    assert one.train_x.shape == (5 * N, 3, 32, 32)
    for name in ("train_x", "train_y", "test_x", "test_y"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    np.testing.assert_array_equal(one.train_x[N, 1].ravel(), _batch(1)[0][0, 1024:2048])


@pytest.mark.usefixtures("few_records")
def test_a_pickle_that_asks_for_code_is_refused_before_it_runs(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.mkdir, (str(tmp_path / "sprung"),)

    _write_python(tmp_path, extra=Trap())
    with pytest.raises(DataError, match=r"asks to load '\w+\.mkdir'"):
        load_images("cifar10", tmp_path)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.usefixtures("few_records")
@pytest.mark.parametrize(
    "changes",
    [
        {"data": np.zeros((N, 3071), np.uint8)},
        {"data": np.zeros((N, 3072), np.float32)},
        {"data": np.array([[object()]], dtype=object)},
        {"data": [1, 2]},
        {"labels": [10] * N},
        {"labels": [True] * N},
        {"labels": [0] * (N - 1)},
    ],
)
def test_a_python_batch_of_another_form_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    _write_python(tmp_path, **changes)
    with pytest.raises(DataError, match="data_batch_1"):
        load_images("cifar10", tmp_path)


@pytest.mark.usefixtures("few_records")
def test_cut_and_missing_cifar_files_are_refused(tmp_path: Path) -> None:
    folder = _write_binary(tmp_path)
    path = folder / "data_batch_3.bin"
    whole = path.read_bytes()
    for kept in (0, 100, len(whole) // 2, len(whole) - 3073):
        path.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"data_batch_3.bin must be .* bytes"):
            load_images("cifar10", tmp_path)
    path.write_bytes(b"\x0a" + whole[1:])
    with pytest.raises(DataError, match=r"label 10, labels must be 0\.\.9"):
        load_images("cifar10", tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="missing"):
        load_images("cifar10", tmp_path)


@pytest.mark.usefixtures("few_records")
@pytest.mark.parametrize("kept", [0, 10, 5000])
def test_a_cut_python_batch_is_refused(tmp_path: Path, kept: int) -> None:
    path = _write_python(tmp_path) / "test_batch"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match="test_batch is not a CIFAR-10 batch"):
        load_images("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("packed", [True, False])
def test_idx_files_are_read_packed_or_not(tmp_path: Path, name: str, packed: bool) -> None:
    _write_idx(tmp_path, name, packed)
    data = load_images(name, tmp_path)
    assert data.train_x.shape == (30, 1, 28, 28)
    assert data.test_y.tolist() == list(range(10))
    np.testing.assert_array_equal(
        data.train_x[:, 0], np.random.default_rng(30).integers(0, 256, (30, 28, 28), dtype=np.uint8)
    )


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("train-images-idx3-ubyte", b"", "16 bytes of header"),
        ("train-images-idx3-ubyte", struct.pack(">4i", 2049, 1, 28, 28) + bytes(784), "magic number 2051, got 2049"),
        ("train-images-idx3-ubyte", struct.pack(">4i", 2051, 2, 28, 28) + bytes(784), "got 800"),
        ("train-images-idx3-ubyte", struct.pack(">4i", 2051, 1, 28, 28) + bytes(785), "got 801"),
        ("train-images-idx3-ubyte", struct.pack(">4i", 2051, 1, 32, 32) + bytes(1024), "says 32x32"),
        ("train-images-idx3-ubyte", struct.pack(">4i", 2051, -1, 28, 28), "says -1"),
        ("train-images-idx3-ubyte", struct.pack(">4i", 2051, 2**31 - 1, 28, 28), "its header says 2,147,483,647"),
        ("t10k-labels-idx1-ubyte", struct.pack(">2i", 2049, 9) + bytes(9), "got 9 for 10 images"),
        ("t10k-labels-idx1-ubyte", struct.pack(">2i", 2049, 10) + b"\x0a" * 10, r"label 10, labels must be 0\.\.9"),
    ],
)
def test_a_broken_idx_file_is_refused(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    (_write_idx(tmp_path, "mnist", packed=False) / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_images("mnist", tmp_path)


def test_a_broken_gzip_file_is_refused(tmp_path: Path) -> None:
    path = _write_idx(tmp_path, "mnist", packed=True) / "train-images-idx3-ubyte.gz"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"not gzip", whole[:200] + b"\0" * 200 + whole[400:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a whole gzip file"):
            load_images("mnist", tmp_path)


def test_the_data_folder_is_the_only_place_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write_idx(tmp_path, "mnist", packed=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAYERSEARCH_DATA", str(tmp_path))
    with pytest.raises(DataError, match="folder 'mnist' of the data folder"):
        load_images("mnist", tmp_path / "elsewhere")
    with pytest.raises(DataError, match="'cifar-10-batches-bin' or 'cifar-10-batches-py' of the data folder"):
        load_images("cifar10", tmp_path / "elsewhere")
    with pytest.raises(DataError, match="give --data-dir"):
        load_images("mnist", None)


def test_an_unknown_data_set_is_named_with_its_neighbour() -> None:
    assert list(IMAGE_SETS) == ["cifar10", "digits", "fashion_mnist", "mnist"]
    with pytest.raises(UnknownNameError, match="did you mean 'digits'"):
        load_images("digit")


def test_arrays_keep_everything() -> None:
    data = load_images("digits")
    arrays = to_arrays(data)
    assert all(isinstance(array, np.ndarray) and array.ndim >= 1 for array in arrays.values())
    back = from_arrays(arrays)
    assert (back.name, back.classes) == ("digits", 10)
    np.testing.assert_array_equal(back.test_x, data.test_x)
    with pytest.raises(DataError, match="test_y"):
        from_arrays({name: array for name, array in arrays.items() if name != "test_y"})


@pytest.mark.data
@pytest.mark.slow
def test_the_published_files_are_read_exactly() -> None:
    root = os.environ.get("LAYERSEARCH_DATA")
    if not root:
        pytest.skip("LAYERSEARCH_DATA is not set: the published files are not at hand")
    data = load_images("cifar10", Path(root))
    # SHA-256 of the pixels in the published order, taken from files whose MD5 is the published one.
    assert hashlib.sha256(data.train_x.tobytes()).hexdigest().startswith("9d5c2eddadb0deff02c14c350c0385aa")
    assert hashlib.sha256(data.test_x.tobytes()).hexdigest().startswith("177777c33ba79825320efa646ad04a94")
    assert np.bincount(data.train_y).tolist() == [5000] * 10
    python = cifar._read_python(Path(root) / "cifar-10-batches-py" / "data_batch_2")
    np.testing.assert_array_equal(python[0], data.train_x[10_000:20_000])
    np.testing.assert_array_equal(python[1], data.train_y[10_000:20_000])
    mnist = load_images("mnist", Path(root))
    assert abs(mnist.train_x.mean() / 255 - 0.13066) < 1e-5
    assert abs(load_images("fashion_mnist", Path(root)).train_x.mean() / 255 - 0.28604) < 1e-5
