"""Imports run one way: kernels ← primitives ← spaces ← search; and nothing heavy is imported before it is used."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ("kernels", "primitives", "spaces", "search")
HEAVY = ("torch", "ray", "optuna", "deap", "triton", "sklearn", "onnx", "scipy")


def imports(path: Path) -> list[str]:
    names: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            names.append(node.module or "")
    return names


@pytest.mark.parametrize("layer", ORDER)
def test_imports_point_to_the_left(layer: str) -> None:
    allowed = ORDER[: ORDER.index(layer) + 1]
    for path in sorted((ROOT / layer).rglob("*.py")):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] == "layersearch" and len(parts) > 1 and parts[1] in ORDER:
                assert parts[1] in allowed, f"{path.relative_to(ROOT)} imports {name}, which lies to its right"


def test_the_package_and_the_command_import_nothing_heavy() -> None:
    code = (
        "import sys, layersearch, layersearch.search.cli, layersearch.spaces.contracts, layersearch.primitives.seeds;"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "path", sorted(p for layer in ORDER for p in (ROOT / layer).rglob("*.py")), ids=lambda p: p.stem
)
def test_every_module_says_what_it_is_and_what_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text())
    named = any(
        isinstance(n, ast.Assign | ast.AnnAssign) and "__all__" in ast.unparse(n).split("=")[0] for n in tree.body
    )
    assert named, f"{path.relative_to(ROOT)} has no __all__"
    assert ast.get_docstring(tree), f"{path.relative_to(ROOT)} has no docstring"
