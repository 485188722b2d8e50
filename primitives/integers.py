"""Whole numbers as users give them."""

import operator
from typing import Any

__all__ = ["integer"]


def integer(value: Any) -> int | None:
    """``value`` if it is an integer of Python, numpy or torch; None for anything else, truth values included.

    >>> integer(3), integer(3.0), integer(True)
    (3, None, None)
    """
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None
