"""An exported module as its user has it: run on its own, with nothing but plain imports."""

import ast
from typing import Any

from layersearch.spaces.contracts import PythonFile

__all__ = ["run_exported"]


def run_exported(file: PythonFile) -> tuple[dict[str, Any], float]:
    """Namespace of the module, and the largest difference from its genome."""
    namespace: dict[str, Any] = {"__name__": "exported"}
    exec(compile(file.body, "exported.py", "exec"), namespace)
    imported = [node for node in ast.walk(ast.parse(file.body)) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {
        node.module if isinstance(node, ast.ImportFrom) else alias.name for node in imported for alias in node.names
    }
    assert names <= {"json", "math", "torch", "torch.nn"}
    assert max(map(len, file.body.split("\n"))) <= 120
    return namespace, file.check(namespace)
