"""Run folders: how they are named, made, found and written to, so that nothing is ever overwritten."""

import difflib
import errno
import os
import re
import shlex
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from layersearch.errors import BadInputError, LayerSearchError, RecipeError, RunError
from layersearch.search.store_schema import STORE_FILE

__all__ = ["RECIPE_FILE", "create_run", "find_run", "resume_command", "run_dirs", "runs_dir_option"]

RECIPE_FILE = "recipe.yaml"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


_ELSEWHERE = "choose another --runs-dir"


def _checked_name(name: str, remedy: str) -> str:
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"the name of a run must be letters, digits, '.', '_' and '-', up to 100, got {name!r:.120}; {remedy}"
        )
    return name


def create_run(
    runs_dir: Path, name: str | None, space: str, files: Mapping[str, str | bytes], replaces: bool = False
) -> Path:
    """Makes the folder of a new run: ``name``, or the next free ``<space>-NNNN``. Safe against others doing the same.

    A run has all its ``files`` (contents by name) from the moment that it has its name, also after a kill or power cut.

    Args:
        replaces: the run ``name``, if there is one: it is removed once the new one is whole. The caller holds its lock.
    Raises: RecipeError for an illegal name; BadInputError if it exists or the runs folder cannot be written to;
        RunError if the disk is full. Nothing is left then.
    """
    if name is not None:
        _checked_name(name, "choose another --run")
    runs_dir = runs_dir.expanduser()
    draft = runs_dir / f".new-{os.getpid()}-{time.monotonic_ns()}"
    replaced = draft.with_name(f"{draft.name}-replaced")
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        draft.mkdir()
        for file, content in files.items():
            _write(draft / file, content.encode() if isinstance(content, str) else content)
        if name is not None:
            path = runs_dir / name
            if replaces and _is_run(path):
                path.rename(replaced)
            if os.path.lexists(path) or not _named(draft, path):
                raise BadInputError(
                    f"a new run must have a new name, and {path} exists; choose another --run, or go on with it by "
                    f"{resume_command(path)}"
                )
            return path
        number = 1 + max((_number(path.name, space) for path in runs_dir.iterdir()), default=0)
        while not _named(draft, path := runs_dir / f"{space}-{number:04d}"):
            number += 1
        return path
    except FileExistsError:  # the runs folder is a file
        raise _unwritable(runs_dir, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from None
    except OSError as error:
        raise _unwritable(runs_dir, error) from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _named(draft: Path, path: Path) -> bool:
    """Gives the folder its name. False if another has it: a rename replaces no folder that holds a file."""
    try:
        draft.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            return False
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return True


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _number(folder: str, space: str) -> int:
    match = re.fullmatch(rf"{re.escape(space)}-([0-9]{{4,9}})", folder)
    return int(match[1]) if match else 0


def _unwritable(path: Path, error: OSError) -> LayerSearchError:
    """Exit code 1 for a full disk, 2 for a path that cannot be written to."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return RunError(f"the disk must have room for {path}, but it is full; make room and try again")
    return BadInputError(
        f"the folder of runs must be writable, but {path} is not ({error.strerror or error}); choose another --runs-dir"
    )


def run_dirs(runs_dir: Path, remedy: str = _ELSEWHERE) -> list[Path]:
    """Folders in ``runs_dir`` that hold a run, by name. Raises: BadInputError with ``remedy`` if it cannot be read."""
    try:
        return sorted(path for path in runs_dir.iterdir() if _is_run(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInputError(
            f"the folder of runs must be readable, but {runs_dir} is not ({error.strerror}); {remedy}"
        ) from error


def _is_run(path: Path) -> bool:
    named = _NAME.fullmatch(path.name) is not None  # a folder that is being made is not
    return named and ((path / RECIPE_FILE).is_file() or (path / STORE_FILE).is_file())


def find_run(runs_dir: Path, name: str, remedy: str = f"see search list, or {_ELSEWHERE}") -> Path:
    """Folder of the run ``name``.

    Args:
        remedy: what to do if there is none.
    Raises: RecipeError for an illegal name; BadInputError if there is no such run.
    """
    runs_dir = runs_dir.expanduser()
    path = runs_dir / _checked_name(name, remedy)
    if _is_run(path):
        return path
    names = [other.name for other in run_dirs(runs_dir, remedy)]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'? (see search list)" if near else remedy
    raise BadInputError(f"a run must be named, but there is none named '{name}' in {runs_dir}; {hint}")


def resume_command(run_dir: Path) -> str:
    """What to type to go on with a run."""
    return f"search resume {run_dir.name}{runs_dir_option(run_dir)}"


def runs_dir_option(run_dir: Path) -> str:
    """What a command needs to find a run, beside its name."""
    return "" if run_dir.parent == Path("runs") else f" --runs-dir {shlex.quote(str(run_dir.parent))}"
