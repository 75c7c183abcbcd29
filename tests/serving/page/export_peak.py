"""``python export_peak.py HOME FORM [whole]``: export a table, and print by how many bytes the process grew at most.

With ``whole``, files are decoded as Arrow's datasets do it, a row group at a time: what the test must notice.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from headrace.config.settings import load_settings
from headrace.lake.delta import browse
from headrace.lake.layout import conform
from headrace.serving.page.reading import functions
from headrace.serving.page.seen import Which


def of_this_process(name: str) -> int:
    """A number of ``/proc/self/status``, bytes."""
    line = next(one for one in Path("/proc/self/status").read_text().splitlines() if one.startswith(name))
    return int(line.split()[1]) * 1024


def whole_groups(storage: Any, path: str, table: Any, day: object, _: int) -> Iterator[pa.Table]:
    with storage.opened(path) as source:
        file = pq.ParquetFile(source)
        for n in range(file.num_row_groups):
            yield conform(file.read_row_group(n), table, day)  # type: ignore[arg-type]


def main(home: str, form: str, *how: str) -> None:
    """Export everything."""
    settings = load_settings(home=Path(home))
    pl.DataFrame({"a": ["x"] * 100}).write_csv()  # what is loaded at first use is no part of it
    functions.tables(settings)
    if how:
        browse._rows_of = whole_groups  # type: ignore[assignment]
    before = of_this_process("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    written = sum(map(len, functions.export(settings, Which("events"), form)))
    print(of_this_process("VmHWM:") - before, written)


if __name__ == "__main__":
    main(*sys.argv[1:])
