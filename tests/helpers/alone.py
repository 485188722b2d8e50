"""Runs a script in a process that does not find layersearch by PYTHONPATH, in the folder of the files it uses."""

import os
import subprocess
import sys
from pathlib import Path

__all__ = ["alone"]


def alone(code: str, folder: Path) -> str:
    """What it prints; it must end well."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True).stdout
