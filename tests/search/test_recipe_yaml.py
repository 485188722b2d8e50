"""YAML of strangers: plain values come through, everything else is one sentence."""

import math
import time
from pathlib import Path

import pytest
import yaml

from layersearch.errors import RecipeError
from layersearch.search.recipe_yaml import MAX_BYTES, load_file, load_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3), ("12", 12), ("-0.5", -0.5), ("true", True), ("~", None), ("", None), ("yes", "yes"),
        ("010", "010"), ("1:30", "1:30"), ("2026-01-01", "2026-01-01"), ("[1, 2]", [1, 2]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("'12'", "12"), (".inf", math.inf), ("9" * 30, "9" * 30),
    ],
)  # fmt: skip
def test_plain_values(text: str, value: object) -> None:
    assert load_text(text, "it") == value
    assert type(load_text(text, "it")) is type(value)


def test_what_is_dumped_is_read_back() -> None:
    values = {"a": [1, 2.5, 1e-05, "1e3x", "yes", None, True], "b": {"c.d": "text: with colon"}}
    assert load_text(yaml.safe_dump(values), "it") == values


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\nb: 2\na: 3", "line 3 is not (the key 'a' twice)"),
        ("a: {b: 1, b: 2}", "key 'b' twice"),
        ("a: &x 1\nb: *x", "a reference"),
        (
            "a: !!python/object/apply:os.system [ls]",
            "line 1 is not (a tag (tag:yaml.org,2002:python/object/apply:os.system))",
        ),
        ("a: !!timestamp nonsense", "a tag"),
        ("a: !x 1", "a tag"),
        ("a: [1, 2", "line 1 is not"),
        ("a: 1\n b: 2", "line 2 is not"),
        ("a: \t- b\n\tc", "line"),
        ("a: \x00", "plain YAML"),
        ("[" * 50, "more than 8 levels"),
        ("{" * 20_000, "more than 8 levels"),
        ("? [1, 2]\n: 3", "a key that is no text"),
        ("a: 1\n---\nb: 2", "another document"),
    ],
)
def test_what_is_refused(text: str, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load_text(text, "the recipe")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_do_not_blow_up() -> None:
    """Nine levels of nine would be 387 million values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    began = time.perf_counter()
    with pytest.raises(RecipeError, match="a reference"):
        load_text("\n".join(lines), "the recipe")
    assert time.perf_counter() - began < 30


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"# " + b"x" * MAX_BYTES, "at most"),
        (b"a: \xff\xfe", "UTF-8"),
        (b"- a\n- b", "got list"),
        (b"just text", "got str"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=says):
        load_file(path)


def test_a_missing_file_a_folder_and_an_empty_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(RecipeError, match="must be a readable file"):
            load_file(path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert load_file(tmp_path / "empty.yaml") == {}
