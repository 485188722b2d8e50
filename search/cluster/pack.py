"""A run as text, so that it can come back through the log of a job: the one thing that any Ray cluster hands out.

What comes back is what is needed to show, report, export and resume it; checkpoints stay, and what they were for is
trained again when it is needed.
"""

import base64
import binascii
import contextlib
import hashlib
import io
import lzma
import re
import sqlite3
import sys
import tarfile
import tempfile
from pathlib import Path

from layersearch.errors import LayerSearchError, RunError
from layersearch.search.lock import RunLock
from layersearch.search.runs import RECIPE_FILE, create_run, find_run
from layersearch.search.store_schema import STORE_FILE

__all__ = ["pack", "unpack"]

FILES = (RECIPE_FILE, "environment.json", STORE_FILE)
_MOST_BYTES = 2**32
_PACKED = re.compile(r"^layersearch-run ([0-9a-f]{64})\n([A-Za-z0-9+/=\n]*)\nlayersearch-end$", re.MULTILINE)


def pack(run_dir: Path) -> str:
    """The run in ``run_dir``, which may go on meanwhile."""
    buffer = io.BytesIO()
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=buffer, mode="w:xz", preset=1) as archive:
        for name in FILES:
            source = run_dir / name
            if name == STORE_FILE and source.exists():
                source = Path(folder) / name
                _snapshot(run_dir / name, source)
            if source.exists():
                archive.add(source, name)
    data = buffer.getvalue()
    text = base64.encodebytes(data).decode("ascii")
    return f"layersearch-run {hashlib.sha256(data).hexdigest()}\n{text}layersearch-end\n"


def _snapshot(store: Path, copy: Path) -> None:
    with (
        contextlib.closing(sqlite3.connect(f"{store.resolve().as_uri()}?mode=ro", uri=True)) as source,
        contextlib.closing(sqlite3.connect(copy)) as target,
    ):
        source.backup(target)


def unpack(text: str, runs_dir: Path, name: str, force: bool = False) -> Path:
    """Makes the folder of the run in ``text``, whatever stands around it. Returns where it is.

    Args:
        force: replaces a run of this name.
    Raises: BadInputError if there is one; StoreError if it is being run; RunError if the text is torn.
    """
    found = _PACKED.search(text.replace("\r\n", "\n"))
    try:
        if found is None:
            raise ValueError("it has no end")
        data = base64.b64decode(found[2], validate=False)
        if hashlib.sha256(data).hexdigest() != found[1]:
            raise ValueError("its checksum is wrong")
        files = _files(data)
    except (ValueError, binascii.Error, tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise RunError(f"the run must come back whole, but it did not ({error}); fetch it again") from None
    replaces = force and (runs_dir / name).is_dir()
    with RunLock(find_run(runs_dir, name)) if replaces else contextlib.nullcontext():
        return create_run(runs_dir, name, name, files, replaces)


def _files(data: bytes) -> dict[str, bytes]:
    """Contents by name, of those that a run has; whatever else an archive might hold is left."""
    files: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:xz") as archive:
        for member in archive:
            if member.name not in FILES or not member.isfile():
                continue
            if member.size > _MOST_BYTES:
                raise ValueError(f"{member.name} is larger than {_MOST_BYTES} bytes")
            content = archive.extractfile(member)
            assert content is not None, "a regular file has a content"
            files[member.name] = content.read()
    return files


def _main(runs_dir: str, name: str) -> int:
    try:
        print(pack(find_run(Path(runs_dir), name)), flush=True)
    except LayerSearchError as error:
        print(f"search: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(*sys.argv[1:]))
