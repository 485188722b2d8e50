"""A run folder from elsewhere names its space; that alone must not let it call anything."""

import pytest

from layersearch.errors import RecipeError
from layersearch.search.executors.base import SpaceSpec
from layersearch.spaces.catalog import SPACES


def test_spaces_of_the_catalog_are_allowed() -> None:
    for row in SPACES.values():
        assert SpaceSpec(row.entry).entry == row.entry


@pytest.mark.parametrize(
    "entry",
    ["os:system", "layersearch.search.cli:main", "layersearch.search.executors.base:trust", "toy", ":f", "a:b.c"],
)
def test_other_functions_are_not(entry: str) -> None:
    with pytest.raises(RecipeError) as caught:
        SpaceSpec(entry)
    assert "\n" not in str(caught.value)
