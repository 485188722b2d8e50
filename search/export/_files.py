"""Files that appear whole or not at all, and never in place of another one unasked."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from layersearch.errors import BadInputError
from layersearch.search.export.base import ExportError

__all__ = ["check_target", "new_file"]


def check_target(path: Path, force: bool) -> None:
    """Raises: BadInputError if ``path`` is a folder or exists (without ``force``), or its folder cannot be used."""
    try:
        if path.is_dir():
            raise BadInputError(f"the output must be a file, but {path} is a folder; give a file name with -o")
        os.stat(path.with_name(f".{path.name}"))
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:  # a name that is too long, a null byte, a folder that cannot be entered
        raise _unwritable(path, error) from None
    if not path.parent.is_dir():
        raise BadInputError(f"the folder of the output must exist, got {path.parent}; make it, or choose another -o")
    if os.path.lexists(path) and not force:
        raise _taken(path)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise BadInputError(f"the folder of the output must be writable, got {path.parent}; choose another with -o")


@contextmanager
def new_file(path: Path, force: bool = False) -> Iterator[Path]:
    """Gives a path beside ``path`` to write to; on leaving without an error that file takes the name ``path``.

    Raises: as ``check_target``, also when the file turns up meanwhile; ExportError when the disk is full.
    """
    check_target(path, force)
    draft = path.with_name(f".{path.stem[:64]}-{os.getpid()}{path.suffix[:16]}")
    try:
        yield draft
        if force:
            os.replace(draft, path)
        else:
            _publish(draft, path)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ExportError(
                f"{path} could not be written: the disk is full; free some space and try again"
            ) from error
        raise _unwritable(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


def _publish(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)  # unlike a rename, this refuses to replace a file that came between
    except FileExistsError:
        raise _taken(path) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(path):
            raise _taken(path) from None
        os.replace(draft, path)


def _taken(path: Path) -> BadInputError:
    return BadInputError(f"the output never overwrites a file, and {path} exists; choose another -o or add --force")


def _unwritable(path: Path, error: OSError | ValueError) -> BadInputError:
    reason = getattr(error, "strerror", None) or str(error)
    return BadInputError(f"the output must be writable, but {str(path)!r:.200} is not ({reason}); choose another -o")
