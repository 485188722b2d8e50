"""Hands a layer over as a file that runs without layersearch: one row of ``FORMATS`` per format, one file each."""

from layersearch.search.export.base import FORMATS, RUN_FORMATS, ExportError, Format, RunFormat, Subject

__all__ = ["FORMATS", "RUN_FORMATS", "ExportError", "Format", "RunFormat", "Subject"]
