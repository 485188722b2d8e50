"""Run folders: how they are named, made, found and written to, so that nothing is ever overwritten."""

import difflib
import errno
import os
import re
import shlex
from pathlib import Path

from layersearch.errors import BadInputError, LayerSearchError, RecipeError, RunError
from layersearch.search.store_schema import STORE_FILE

__all__ = ["RECIPE_FILE", "create_run", "find_run", "resume_command", "run_dirs", "runs_dir_option", "write_atomically"]

RECIPE_FILE = "recipe.yaml"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise RecipeError(
            f"the name of a run must be letters, digits, '.', '_' and '-', up to 100, got {name!r:.120}; "
            "choose another --run"
        )
    return name


def create_run(runs_dir: Path, name: str | None, space: str) -> Path:
    """Makes the folder of a new run: ``name``, or the next free ``<space>-NNNN``. Safe against others doing the same.

    Raises: RecipeError for an illegal name; BadInputError if it exists or the runs folder cannot be written to;
        RunError if the disk is full.
    """
    if name is not None:
        _checked_name(name)
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        if name is not None:
            (runs_dir / name).mkdir()
            return runs_dir / name
        number = 1 + max((_number(path.name, space) for path in runs_dir.iterdir()), default=0)
        while True:
            try:
                (runs_dir / f"{space}-{number:04d}").mkdir()
                return runs_dir / f"{space}-{number:04d}"
            except FileExistsError:
                number += 1
    except FileExistsError:
        if name is None or not runs_dir.is_dir():
            raise _unwritable(runs_dir, OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))) from None
        raise BadInputError(
            f"a new run must have a new name, and {runs_dir / name} exists; choose another --run, or go on with it by "
            f"{resume_command(runs_dir / name)}"
        ) from None
    except OSError as error:
        raise _unwritable(runs_dir, error) from error


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


def run_dirs(runs_dir: Path) -> list[Path]:
    """Folders in ``runs_dir`` that hold a run, by name. Raises: BadInputError if it cannot be read."""
    try:
        return sorted(path for path in runs_dir.iterdir() if _is_run(path))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise BadInputError(
            f"the folder of runs must be readable, but {runs_dir} is not ({error.strerror}); choose another --runs-dir"
        ) from error


def _is_run(path: Path) -> bool:
    return (path / RECIPE_FILE).is_file() or (path / STORE_FILE).is_file()


def find_run(runs_dir: Path, name: str) -> Path:
    """Folder of the run ``name``. Raises: RecipeError for an illegal name; BadInputError if there is no such run."""
    path = runs_dir / _checked_name(name)
    if _is_run(path):
        return path
    names = [other.name for other in run_dirs(runs_dir)]
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean '{near[0]}'? (see search list)" if near else "see search list, or choose another --runs-dir"
    raise BadInputError(f"a run must be named, but there is none named '{name}' in {runs_dir}; {hint}")


def resume_command(run_dir: Path) -> str:
    """What to type to go on with a run."""
    return f"search resume {run_dir.name}{runs_dir_option(run_dir)}"


def runs_dir_option(run_dir: Path) -> str:
    """What a command needs to find a run, beside its name."""
    return "" if run_dir.parent == Path("runs") else f" --runs-dir {shlex.quote(str(run_dir.parent))}"


def write_atomically(path: Path, text: str) -> None:
    """The whole file or none, also after a power cut. Raises: RunError if the disk is full, else BadInputError."""
    draft = path.with_name(f".{path.name}.draft")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise _unwritable(path, error) from error
