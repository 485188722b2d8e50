"""Generated Triton as text and as launches: no Triton is needed to write it."""

import ast
import functools
import json
import random
import subprocess
import sys
from pathlib import Path

import pytest
from graphs import random_graphs

from layersearch.kernels.codegen._triton_shapes import (
    Config,
    Sizes,
    class_key,
    default_config,
    planned,
    work_floats,
)
from layersearch.kernels.codegen._triton_tune import Tuned
from layersearch.kernels.codegen._triton_words import META
from layersearch.kernels.codegen.triton import Kernel, TritonSource, triton_source
from layersearch.primitives.canonical import canonical
from layersearch.primitives.graph import Graph, Node
from layersearch.primitives.lowering.program import lower
from layersearch.spaces.evonorm.published import PUBLISHED

KNOWN = {name: canonical(graph) for name, graph in PUBLISHED.items()}
POINTWISE = Graph((Node("x"), Node("sigmoid", (0,)), Node("mul", (0, 1))))


def sources(graph: Graph, training: bool = True) -> dict[str, TritonSource]:
    program = lower(graph, training=training)
    return triton_source({"forward": program.forward, "backward": program.backward})


def kinds(kernels: tuple[Kernel, ...] | None) -> list[str]:
    return [] if kernels is None else [kernel.kind for kernel in kernels if kernel.kind != "merge"]


@functools.cache
def some_sources() -> list[TritonSource]:
    graphs = [*KNOWN.values(), *random_graphs(20, seed=29)]
    return [source for graph in graphs for source in sources(canonical(graph)).values()]


def kernels_of(source: TritonSource) -> list[Kernel]:
    return [*source.staged, *(source.slab or ())]


@pytest.mark.parametrize("name", ["bn-relu", "evonorm-b0", "evonorm-b2"])
def test_batch_statistics_take_two_readings(name: str) -> None:
    for source in sources(KNOWN[name]).values():
        assert kinds(source.staged) == ["sweep", "columns", "sweep"]
        assert source.slab is None


def test_group_statistics_take_one_reading_of_a_slab() -> None:
    both = sources(KNOWN["evonorm-s0"])
    assert kinds(both["forward"].slab) == ["slab"]
    assert kinds(both["backward"].slab) == ["slab", "columns"]
    assert {source.scope for source in both.values()} == {"group"}


@pytest.mark.parametrize(("graph", "training"), [(POINTWISE, True), (KNOWN["bn-relu"], False)], ids=["point", "eval"])
def test_without_statistics_it_is_read_once_each_way(graph: Graph, training: bool) -> None:
    both = sources(canonical(graph), training)
    assert kinds(both["forward"].staged) == ["sweep"]
    assert kinds(both["backward"].staged) == ["sweep", "columns"]


def test_a_kernel_is_one_function_that_begins_at_the_same_line() -> None:
    lines = set()
    for source in some_sources():
        for kernel in kernels_of(source):
            tree = ast.parse(kernel.text)
            functions = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
            assert [f.name for f in functions] == [kernel.name]
            lines.add(functions[0].lineno)
            assert tuple(a.arg for a in functions[0].args.args) == kernel.arguments
    assert len(lines) == 1


def test_no_kernel_adds_atomically() -> None:
    assert not any("atomic" in kernel.text for source in some_sources() for kernel in kernels_of(source))


def test_names_are_assigned_before_they_are_read() -> None:
    """A value that a kernel forgot to load would be found only at run time."""
    for source in some_sources():
        for kernel in kernels_of(source):
            (function,) = (node for node in ast.parse(kernel.text).body if isinstance(node, ast.FunctionDef))
            known = {"tl", "range", *kernel.arguments}
            for node in _in_order(function.body):
                if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
                    assert node.id in known, (node.id, kernel.text)
                elif isinstance(node, ast.Name):
                    known.add(node.id)


def _in_order(body: list[ast.stmt]) -> list[ast.AST]:
    """Names of statements as they are run: what is read before what is assigned."""
    found: list[ast.AST] = []
    for statement in body:
        if isinstance(statement, ast.If | ast.For):
            head = statement.test if isinstance(statement, ast.If) else statement.iter
            found += ast.walk(head)
            found += [] if isinstance(statement, ast.If) else ast.walk(statement.target)
            found += _in_order([*statement.body, *statement.orelse])
        else:
            names = list(ast.walk(statement))
            found += sorted(names, key=lambda node: isinstance(getattr(node, "ctx", None), ast.Store))
    return found


def test_text_is_equal_in_another_process() -> None:
    code = (
        "import hashlib; from layersearch.kernels.codegen.triton import triton_source;"
        "from layersearch.primitives.lowering.program import lower;"
        "from layersearch.spaces.evonorm.published import PUBLISHED;"
        "p = lower(PUBLISHED['evonorm-s0']);"
        "s = triton_source({'f': p.forward, 'b': p.backward});"
        "texts = [k.text for one in s.values() for k in (*one.staged, *one.slab)];"
        "print(hashlib.sha256(repr(texts).encode()).hexdigest())"
    )
    said = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment).stdout
        for environment in ({"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)} for seed in ("1", "2"))
    }
    assert len(said) == 1


def some_sizes(rng: random.Random) -> Sizes:
    channels = rng.choice([1, 3, 7, 8, 24, 64, 96, 300, 2048])
    per_group = rng.choice([k for k in range(1, channels + 1) if channels % k == 0])
    pixels = rng.choice([1, 2, 15, 49, 64, 196, 1024, 3136, 50176, 10**6])
    samples = rng.choice([1, 2, 5, 128, 1000])
    return Sizes(samples, channels, pixels, per_group, rng.choice([2, 4]), rng.random() < 0.5 and pixels > 1)


def test_programs_cover_every_element_once_and_blocks_are_powers_of_two() -> None:
    rng = random.Random(0)
    for source in some_sources():
        for _ in range(4):
            sizes = some_sizes(rng)
            launches = planned(source, sizes, lambda kernel, s=source, z=sizes: default_config(kernel, s, z))  # type: ignore[misc]
            assert work_floats(source, sizes, launches) >= source.work.size(sizes.n, sizes.c)
            for made in launches:
                blocks = {word: value for word, value in made.numbers.items() if word in META}
                assert all(value > 0 and value & (value - 1) == 0 for value in map(int, blocks.values()) if value)
                tile = int(blocks.get("LANES", 1)) * int(blocks.get("SPAN", 1))
                assert made.kernel.kind == "merge" or tile <= 2**17
                if made.kernel.kind in ("sweep", "slab"):
                    span = int(blocks["SPAN"]) * int(blocks.get("STEPS", 1))
                    lanes = int(blocks["LANES"])
                    assert span * made.grid[1] >= sizes.s > span * (made.grid[1] - 1)
                    cells = sizes.c if sizes.nhwc else sizes.n * sizes.c
                    assert made.grid[0] // (sizes.n if sizes.nhwc else 1) * lanes >= cells
                    assert made.numbers.get("s_units", 0) * blocks.get("S_UNIT", 0) in (0, sizes.s)
                    assert made.numbers.get("c_units", 0) * blocks.get("C_UNIT", 0) in (0, sizes.c)


def test_small_values_are_covered_too() -> None:
    rng = random.Random(1)
    for source in some_sources():
        sizes = some_sizes(rng)
        launches = planned(source, sizes, lambda kernel, s=source, z=sizes: default_config(kernel, s, z))  # type: ignore[misc]
        for made in launches:
            blocks = {name: int(value) for name, value in made.numbers.items()}
            if made.kernel.kind == "columns":
                assert made.grid[0] * blocks["COLUMNS"] >= sizes.c
                assert blocks["ROWS"] * blocks["STEPS"] >= sizes.n
            elif made.kernel.kind == "rows":
                groups = sizes.c // sizes.per_group
                of = {"group": (sizes.per_group, groups), "layer": (sizes.c, 1), "groups": (groups, 1)}
                held, rows = of[made.kernel.axis]
                assert blocks["MEMBERS"] >= held
                assert made.grid[0] * blocks["ROWS"] >= sizes.n * rows
            elif made.kernel.kind in ("cells", "merge"):
                assert made.grid[0] * blocks["LANES"] >= sizes.n * sizes.c


def test_a_merge_runs_only_where_planes_are_split() -> None:
    source = sources(KNOWN["bn-relu"])["forward"]
    for pixels, expected in ((1024, False), (10**6, True)):
        sizes = Sizes(1, 4, pixels, 1, 4, nhwc=False)
        launches = planned(source, sizes, lambda kernel, z=sizes: default_config(kernel, source, z))  # type: ignore[misc]
        assert any(made.kernel.kind == "merge" for made in launches) == expected
        parts = launches[0].grid[1] if expected else 0
        assert work_floats(source, sizes, launches) == source.work.size(1, 4) + 2 * parts * 4


def test_one_measurement_stands_for_a_class_of_kernels_and_shapes() -> None:
    one, other = (sources(KNOWN[name])["forward"] for name in ("evonorm-b0", "bn-relu"))
    near = Sizes(128, 64, 1024, 2, 4, nhwc=False), Sizes(100, 60, 900, 2, 4, nhwc=False)
    assert class_key(one.staged[0], one, near[0]) == class_key(other.staged[0], other, near[1])
    far = (
        Sizes(128, 64, 1024, 2, 2, nhwc=False),
        Sizes(128, 64, 1024, 2, 4, nhwc=True),
        Sizes(128, 64, 64, 2, 4, nhwc=False),
    )
    assert len({class_key(one.staged[0], one, sizes) for sizes in (near[0], *far)}) == 4


def test_measured_block_sizes_are_shared_and_survive_damage(tmp_path: Path) -> None:
    path = tmp_path / "tuned.json"
    mine, yours = Tuned(path), Tuned(path)
    mine.put("a", Config(1024, 8))
    yours.put("b", Config(2048, 4))
    assert Tuned(path).get("a") == Config(1024, 8)
    assert Tuned(path).get("b") == yours.get("b") == Config(2048, 4)
    path.write_text(
        json.dumps({"a": {"tile": 1000, "warps": 4}, "b": {"tile": 1024}, "c": 3, "d": {"tile": 64, "warps": 2}})
    )
    assert [Tuned(path).get(key) for key in "abcd"] == [None, None, None, Config(64, 2)]
    for content in ("{", "[]", ""):
        path.write_text(content)
        assert Tuned(path).get("a") is None
    assert [found.name for found in tmp_path.iterdir()] == ["tuned.json"]
