"""Finds the system's C compiler and builds shared libraries once: a cache on disk that many processes may share.

An entry is one file named by its key and by the checksum of its content, put in place by an atomic rename. The key
holds all that the binary depends on: source, emitter, compiler and its version, flags, and the processor's features, so
that a library built for one processor is never loaded on another. A file whose content does not match its name is
removed and built again. Nothing is loaded from a folder that other users can write to.
"""

import ctypes
import errno
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from layersearch.errors import KernelError
from layersearch.kernels.user_cache import own_folder, surplus, user_folder

__all__ = ["CACHE_LIMIT_BYTES", "COMPILERS", "Compiler", "build", "cache_folder", "find_compiler", "library"]

COMPILERS = ("cc", "gcc", "clang")
FLAGS = (
    "-std=gnu11",
    "-O2",
    "-ftree-vectorize",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-freciprocal-math",
    "-shared",
    "-fPIC",
)
"""Not -ffast-math: loading a library linked with it makes the whole process flush subnormal numbers to zero, and its
-ffinite-math-only would let NaN be lost."""
NATIVE = ("-march=native",)
QUICK = (
    "-fno-tree-slp-vectorize",
    "-fno-schedule-insns",
    "-fno-schedule-insns2",
    "-fno-tree-pre",
    "-fno-tree-vrp",
    "-fno-gcse",
    "-fno-ivopts",
    "-fno-thread-jumps",
    "-fno-tree-dominator-opts",
    "-fira-region=one",
)
"""A third less time to build with gcc 12, and layers are no slower (tests/bench/RESULTS.md, *Layers*)."""
CACHE_LIMIT_BYTES = 256 * 1024 * 1024
_ROOM_BYTES = 256 * 1024
"""Free, a build does not fail for want of room: source and library are some tens of kilobytes."""
_TIMEOUT_S = 120
_ABANDONED_S = 3600


@dataclass(frozen=True)
class Compiler:
    """A command that compiles C, what it says of its version, and the flags it takes."""

    command: tuple[str, ...]
    version: str
    flags: tuple[str, ...]


def find_compiler() -> Compiler | str:
    """The compiler that ``$CC`` names, else the first of cc, gcc and clang on the path; or why there is none."""
    return _find(os.environ.get("CC", ""), os.environ.get("PATH", os.defpath))


@functools.lru_cache(maxsize=8)
def _find(chosen: str, path: str) -> Compiler | str:
    try:
        words = shlex.split(chosen)
    except ValueError as error:
        return f"CC is not a command ({error}): {chosen!r}"
    candidates = [words] if words else [[name] for name in COMPILERS]
    for first, *others in candidates:
        found = shutil.which(first, path=path)
        if found is None:
            continue
        command = (found, *others)
        try:
            version = _run([*command, "--version"]).stdout
            return Compiler(command, version, _accepted(command))
        except (OSError, subprocess.SubprocessError, KernelError) as error:
            return f"the C compiler {shlex.join(command)} does not work: {error}"
    if words:
        return f"CC names {words[0]!r}, which is not on the path; install it or unset CC"
    return "no C compiler (cc, gcc or clang) is on the path; install one, or set CC to its command"


def _accepted(command: tuple[str, ...]) -> tuple[str, ...]:
    """As many of the flags as the compiler takes; the last set is the one it must take."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.c"
        source.write_text("float probe(float a) { return __builtin_sqrtf(a); }\n")
        for flags in ((*FLAGS, *QUICK, *NATIVE), (*FLAGS, *NATIVE), FLAGS):
            tried = _run([*command, *flags, "-o", str(Path(folder) / "probe.so"), str(source)])
            if tried.returncode == 0:
                return flags
    raise KernelError(f"it must build a shared library, and says: {_first_lines(tried.stderr)}")


def library(source: str, emitter: str, flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """The shared library of ``source``, from the cache or built. Raises: KernelError with what the compiler said.

    Args:
        flags: after the compiler's own; such as gcc and clang both take.
    """
    compiler = find_compiler()
    if isinstance(compiler, str):
        raise KernelError(compiler)
    compiler = replace(compiler, flags=(*compiler.flags, *flags))
    try:
        path = build(source, emitter, compiler, cache_folder())
    except _FolderError:  # full, or gone meanwhile
        path = build(source, emitter, compiler, own_folder("kernels"))
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelError(f"a kernel that was built must load, got: {error}; clear {path.parent}") from error


def build(source: str, emitter: str, compiler: Compiler, folder: Path) -> Path:
    """Path of the library of ``source`` in the cache ``folder``. Raises: KernelError, also where that is full."""
    try:
        return _build(source, emitter, compiler, folder)
    except OSError as error:
        raise _FolderError(
            f"a kernel must be written to {folder}, but that does not work ({error.strerror or error}); make room, or "
            "set XDG_CACHE_HOME to another folder"
        ) from error


class _FolderError(KernelError):
    """The cache cannot take a kernel, whatever that is."""


def _build(source: str, emitter: str, compiler: Compiler, folder: Path) -> Path:
    parts = (source, emitter, *compiler.command, compiler.version, *compiler.flags, processor())
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    found = _intact(folder, key)
    if found is not None:
        return found
    with tempfile.TemporaryDirectory(dir=folder, prefix="build-") as scratch:
        (Path(scratch) / "kernel.c").write_text(source)
        built = Path(scratch) / "kernel.so"
        command = [*compiler.command, *compiler.flags, "-o", str(built), str(Path(scratch) / "kernel.c"), "-lm"]
        try:
            done = _run(command)
        except (OSError, subprocess.SubprocessError) as error:
            raise KernelError(f"the C compiler {shlex.join(compiler.command)} did not finish: {error}") from error
        if done.returncode != 0:
            if shutil.disk_usage(folder).free < _ROOM_BYTES:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise KernelError(
                f"the C compiler {shlex.join(compiler.command)} must build a kernel, and says: "
                f"{_first_lines(done.stderr)}"
            )
        path = folder / f"{key}-{_checksum(built)}.so"
        os.replace(built, path)
    _shrink(folder, keep=path)
    return path


def cache_folder() -> Path:
    """Where built kernels are kept; see ``user_folder``."""
    return user_folder("kernels")


@functools.cache
def processor() -> str:
    """Architecture and features of this processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()} {platform.node()}"
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join([platform.machine(), *sorted({line for line in lines if line.startswith(wanted)})])


def _intact(folder: Path, key: str) -> Path | None:
    """An entry of the cache whose content is what its name says; others of that key are removed."""
    for path in sorted(folder.glob(f"{key}-*.so")):
        try:
            if path.name == f"{key}-{_checksum(path)}.so":
                os.utime(path)
                return path
            path.unlink(missing_ok=True)
        except OSError:  # removed by another process in between: it is built again
            continue
    return None


def _shrink(folder: Path, keep: Path) -> None:
    """Removes what killed builds left, and the entries not used for longest until the cache is well below its limit."""
    for left in folder.glob("build-*"):
        if _age_s(left) > _ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)
    entries: list[tuple[float, int, Path]] = []
    for path in folder.glob("*.so"):
        try:
            status = path.stat()
        except FileNotFoundError:
            continue
        entries.append((status.st_mtime, status.st_size, path))
    for path in surplus(entries, keep, CACHE_LIMIT_BYTES, 0.75 * CACHE_LIMIT_BYTES):
        path.unlink(missing_ok=True)


def _age_s(path: Path) -> float:
    """Seconds since ``path`` was changed; 0 if another process removed it."""
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _checksum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:32]


def _run(command: Iterable[str]) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"LC_ALL": "C"}
    return subprocess.run(
        list(command), capture_output=True, text=True, errors="replace", timeout=_TIMEOUT_S, env=environment
    )


def _first_lines(text: str) -> str:
    return " / ".join(text.strip().splitlines()[:3]) or "nothing"
