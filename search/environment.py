"""What a run was made with: versions, machine and settings of the process, written beside its recipe."""

import json
import os
import platform
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import layersearch

__all__ = ["PACKAGES", "cores", "cpu_model", "environment", "package_versions"]

PACKAGES = (
    "torch",
    "numpy",
    "triton",
    "ray",
    "optuna",
    "deap",
    "scikit-learn",
    "scipy",
    "safetensors",
    "pydantic",
    "onnx",
)
_VARIABLES = ("CUDA_VISIBLE_DEVICES", "MKL_NUM_THREADS", "OMP_NUM_THREADS")


def package_versions() -> dict[str, str | None]:
    """Version of each of ``PACKAGES``, ``None`` where it is not installed; nothing is imported."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return versions


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_model() -> str:
    """Name of the processor as the system knows it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        return platform.processor() or platform.machine()
    return platform.processor() or platform.machine()


def environment() -> str:
    """The text of ``environment.json``."""
    facts: dict[str, Any] = {
        "layersearch": layersearch.__version__,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": ["search", *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cores": cores(),
        "packages": package_versions(),
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
    }
    return json.dumps(facts, indent=2) + "\n"
