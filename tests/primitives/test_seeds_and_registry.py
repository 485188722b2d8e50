"""Named random streams and the write-once registry."""

import subprocess
import sys

import pytest

from layersearch.errors import UnknownNameError
from layersearch.primitives.registry import Registry
from layersearch.primitives.seeds import Seeds


def test_streams_are_equal_by_name_and_differ_otherwise() -> None:
    seeds = Seeds(1)
    assert seeds.stream("driver", 3).random() == Seeds(1).stream("driver", 3).random()
    values = {
        seeds.derive("driver", 3),
        seeds.derive("driver", 4),
        seeds.derive("driver", "3", ""),
        Seeds(2).derive("driver", 3),
    }
    assert len(values) == 4


def test_names_are_not_run_together() -> None:
    assert Seeds(0).derive("a", "bc") != Seeds(0).derive("ab", "c")


def test_seeds_fit_every_generator() -> None:
    assert all(0 <= Seeds(0).derive("x", k) < 2**63 for k in range(100))


def test_streams_are_equal_in_another_process() -> None:
    code = "from layersearch.primitives.seeds import Seeds; print(Seeds(5).derive('training', 1))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == Seeds(5).derive("training", 1)


def test_a_registry_is_sorted_write_once_and_helpful() -> None:
    table: Registry[int] = Registry("fruit")
    table.add("pear", 1)
    table.add("apple", 2)
    assert list(table) == ["apple", "pear"]
    with pytest.raises(ValueError, match="already registered"):
        table.add("pear", 3)
    with pytest.raises(UnknownNameError, match=r"unknown fruit 'aple'; did you mean 'apple'\? \(known: apple, pear\)"):
        table["aple"]
