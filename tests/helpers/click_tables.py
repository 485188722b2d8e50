"""Click tables of a few rows, written in any of the formats."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from layersearch.spaces.tasks.ctr.data import CTRData, PartName
from layersearch.spaces.tasks.ctr.schema import Schema

__all__ = ["OTHER", "SCHEMA", "TRAIN", "local", "write"]

SCHEMA = Schema.parse(
    {
        "label": "click",
        "columns": [
            "item",
            "city",
            {"name": "age", "kind": "numeric", "bins": 2},
            {"name": "past", "kind": "sequence", "of": "item", "length": 2},
        ],
    }
)
TRAIN = "click,item,city,age,past,unused\n1,a,x,1,,0\n0,b,x,2,a,0\n1,a,,3,a|b|a,0\n0,c,y,nan,b,0\n"
OTHER = "click,item,city,age,past,unused\n1,zzz,y,99,zzz|c,0\n0,b,,,,0\n"


def write(folder: Path, ending: str = "csv", train: str = TRAIN, other: str = OTHER) -> dict[str, Path]:
    files = {}
    for part, text in (("train", train), ("validation", other), ("test", other)):
        files[part] = folder / f"{part}.{ending}"
        if ending == "parquet":
            read, parquet = pytest.importorskip("pyarrow.csv"), pytest.importorskip("pyarrow.parquet")
            (folder / "x.csv").write_text(text)
            parquet.write_table(read.read_csv(folder / "x.csv"), files[part])
        else:
            content = (text.replace(",", "\t") if ending.lower().startswith("tsv") else text).encode()
            files[part].write_bytes(gzip.compress(content) if ending.lower().endswith(".gz") else content)
    return files


def local(data: CTRData, part: PartName) -> list[list[int]]:
    ids: list[list[int]] = (np.asarray(data.part(part).ids) - np.array(data.offsets)).tolist()
    return ids
