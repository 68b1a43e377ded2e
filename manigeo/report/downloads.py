"""Whole tables inside the page, compressed: with scripts a browser saves them as CSV, without as ``.csv.gz``."""

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import pandas as pd

from manigeo.report.sources import ResultsFile
from manigeo.storage.spreadsheets import write_cells

LARGEST = 2_000_000  # bytes of all tables as they stand in the page


@dataclass(frozen=True)
class Download:
    """A table's file: the address of its bytes, empty where there was no room; ``complete`` tells whether all rows are
    in."""

    name: str
    rows: int
    sha256: str
    saved_as: str
    address: str
    complete: bool


def embed_tables(files: Sequence[ResultsFile], room: int = LARGEST) -> list[Download]:
    """Every table with all its rows while there is room, then with those over manifolds, then by its name alone."""
    downloads = []
    for file in files:
        whole, aggregates = file.table, file.table[file.table["manifold"] == ""]
        fitting = ((address, part is whole) for part in (whole, aggregates) if len(address := _address(part)) <= room)
        address, complete = next(fitting, ("", False))
        room -= len(address)
        downloads.append(Download(file.name, len(whole), file.sha256, _csv_name(file.name), address, complete))
    return downloads


def _address(table: pd.DataFrame) -> str:
    """The bytes that ``write_results`` would write; no time of day in the header, so the same table gives the same text."""
    packed = gzip.compress(str(write_cells(table)).encode("utf-8", "replace"), mtime=0)
    return "data:application/gzip;base64," + base64.b64encode(packed).decode()


def _csv_name(name: str) -> str:
    return PurePosixPath(name.replace("/", "-")).stem + ".csv"
