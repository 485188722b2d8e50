"""Measured block sizes: one entry for a kernel class and shape bucket, shared by all candidates, kept on disk.

Nothing is measured unless ``LAYERSEARCH_TRITON_TUNE=1``: block sizes decide the order of sums, so runs are equal bit
for bit where they read the same file. Without an entry the default of the class holds.
"""

import functools
import json
import os
import re
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import cast

from layersearch.kernels.codegen._compile import cache_folder
from layersearch.kernels.codegen._triton_shapes import Config
from layersearch.kernels.codegen.triton import EMITTER

__all__ = ["Tuned", "is_tuning", "median_ms", "tuned"]

_ROUNDS = 11
_LIMIT = 1 << 20
"""Most elements of a tile that Triton takes."""


def is_tuning() -> bool:
    """Whether kernels of a class that has no entry yet are measured."""
    return os.environ.get("LAYERSEARCH_TRITON_TUNE") == "1"


class Tuned:
    """The entries of one device in a JSON file; a file that cannot be read counts as empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._entries = self._read()

    def get(self, key: str) -> Config | None:
        return self._entries.get(key)

    def put(self, key: str, config: Config) -> None:
        """Keeps what other processes have added in the meantime; the file is replaced as a whole."""
        self._entries = {**self._entries, **self._read(), key: config}
        content = {k: {"tile": c.tile, "warps": c.warps} for k, c in sorted(self._entries.items())}
        handle, scratch = tempfile.mkstemp(dir=self.path.parent, prefix="build-", suffix=".json")
        with os.fdopen(handle, "w") as file:
            json.dump(content, file, indent=1)
        os.replace(scratch, self.path)

    def _read(self) -> dict[str, Config]:
        try:
            content = json.loads(self.path.read_text())
        except (OSError, ValueError):
            return {}
        if not isinstance(content, dict):
            return {}
        found: dict[str, Config] = {}
        for key, entry in content.items():
            if isinstance(entry, dict) and _is_power(entry.get("tile"), _LIMIT) and _is_power(entry.get("warps"), 32):
                found[key] = Config(entry["tile"], entry["warps"])
        return found


def _is_power(value: object, most: int) -> bool:
    return type(value) is int and 0 < value <= most and value & (value - 1) == 0


def tuned(device: str) -> Tuned:
    """The entries for a device by its name."""
    word = re.sub(r"[^A-Za-z0-9]+", "-", f"{device} {EMITTER}").strip("-").lower()
    return _tuned(cache_folder() / f"tuned-{word}.json")


@functools.lru_cache(maxsize=8)
def _tuned(path: Path) -> Tuned:
    return Tuned(path)


def median_ms(call: Callable[[], object]) -> float:
    """Median time of a launch on the current CUDA stream, after some that warm it up."""
    import torch

    for _ in range(3):
        call()
    event = partial(cast(Callable[..., torch.cuda.Event], torch.cuda.Event), enable_timing=True)
    times: list[float] = []
    for _ in range(_ROUNDS):
        start, end = event(), event()
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return sorted(times)[_ROUNDS // 2]
