"""What the command line says on the toy space."""

import json
from typing import Any

import pytest
from toy_catalog import toy_cli

__all__ = ["refused", "shown"]


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    """The one object that a command prints."""
    capsys.readouterr()
    assert toy_cli(*arguments, "--json") == 0
    value: dict[str, Any] = json.loads(capsys.readouterr().out)
    return value


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The sentence of a refusal: exit code 2, one line on stderr, nothing on stdout."""
    capsys.readouterr()
    assert toy_cli(*map(str, arguments)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("search: ")
    assert err.count("\n") == 1
    assert "Usage" not in err
    assert "│" not in err
    return err
