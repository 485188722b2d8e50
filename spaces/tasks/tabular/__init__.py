"""Tables with a numeric target and published splits."""

from layersearch.spaces.tasks.tabular.uci import TABLES, Table, read_table

__all__ = ["TABLES", "Table", "read_table"]
