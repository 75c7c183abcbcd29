"""Prepare an installation for its first run: ``python -m headrace.local.prepare``.

Compile and parse ahead, so that the first run does not wait for it.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import polars as pl


def compile_hot_path() -> None:
    """Compile the functions of ingest runs with Numba, and cache the machine code (``headrace.core.compiled``)."""
    from headrace.contracts import EVENTS
    from headrace.contracts.shaping.times import read_times
    from headrace.contracts.wire import json_columns
    from headrace.contracts.wire.decode import decode
    from headrace.contracts.wire.decoded import Failures
    from headrace.sources.kafka.batch import RawBatch
    from headrace.sources.kafka.decode import decode as decode_batches

    decode(EVENTS, pl.Series([b"{}", b""]), 2)  # each of the two decoders gets one message
    texts = pl.Series(["0"])
    for read in (json_columns.dates, json_columns.uuids, json_columns.elements):
        read(texts)
    json_columns.decimals(texts, 1, 0)
    read_times("at", texts, ("%Y-%m-%d", "iso8601", "epoch_s"), "UTC", Failures())
    # a record without key, value and headers
    decode_batches([RawBatch(b"\x0c\x00\x00\x00\x01\x01\x00", 1, 0, 0, None, 0)])
    if find_spec("fastavro"):  # of an extra
        from headrace.formats.registered.avro import compile_ahead

        compile_ahead()


def parse_models() -> None:
    """Parse the dbt project as ``headrace demo`` will."""
    from headrace.config.settings import home_folder, load_settings
    from headrace.models import versions as dbt_versions

    project = dbt_versions.current(load_settings(with_stack=False, home=home_folder() / "demo"))
    if project.problem:
        print(f"headrace: {project.complaint}", file=sys.stderr)


if __name__ == "__main__":
    if sys.argv[1:] == ["parse_models"]:
        parse_models()
    else:
        with subprocess.Popen([sys.executable, "-m", "headrace.local.prepare", "parse_models"]) as beside:
            compile_hot_path()
        raise SystemExit(beside.returncode)
