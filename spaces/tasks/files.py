"""Data files are hostile until read: whatever is wrong with one ends as a single ``DataError`` sentence."""

from pathlib import Path

from layersearch.errors import DataError

__all__ = ["read_bytes", "require_folder"]


def require_folder(data_dir: Path | None, name: str, *folders: str) -> Path:
    """The first of ``folders`` that is in ``data_dir``, the only place searched. Raises DataError if there is none."""
    of_these = " or ".join(f"'{folder}'" for folder in folders)
    if data_dir is None:
        raise DataError(
            f"data set '{name}' is read from files, got no data folder; give --data-dir a folder with {of_these} in it"
        )
    for folder in folders:
        if (data_dir / folder).is_dir():
            return data_dir / folder
    raise DataError(
        f"data set '{name}' must lie in the folder {of_these} of the data folder, and {data_dir} has none; "
        "put it there or give another --data-dir"
    )


def read_bytes(path: Path, size: int | None = None, at_most: int | None = None) -> bytes:
    """The bytes of a file; ``size`` and ``at_most`` (bytes) are checked before anything is read.

    Raises: DataError if the file is missing, unreadable, or not of the expected size.
    """
    try:
        found = path.stat().st_size
        if size is not None and found != size:
            raise DataError(f"{path} must be {size:,} bytes, got {found:,}; fetch the file again")
        if at_most is not None and found > at_most:
            raise DataError(f"{path} must be at most {at_most:,} bytes, got {found:,}; fetch the file again")
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"the data file {path} is missing; put the file there or choose another data set") from None
    except OSError as error:
        raise DataError(f"the data file {path} cannot be read ({error.strerror or error}); check it") from None
