"""Rows of a table by id, times their gates; backward gives the rows that occur, once each."""

__all__: list[str] = []
