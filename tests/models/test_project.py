"""The dbt project as data."""

from __future__ import annotations

import os
import shutil
from datetime import date
from pathlib import Path

import pytest

from builders import eventually
from conftest import Stack
from headrace.config.settings import load_settings
from headrace.core.errors import Fatal
from headrace.models.project import build, share_parsing
from headrace.models.versions import target_folder
from headrace.streams.stream import streams
from headrace.warehouse.server import Server


def test_what_was_parsed_last_is_brought_along_unless_what_is_there_is_newer(tmp_path: Path) -> None:
    settings = load_settings(home=tmp_path)
    known, own = target_folder(settings) / "partial_parse.msgpack", tmp_path / "own" / "partial_parse.msgpack"
    share_parsing(settings, own.parent)
    assert not own.parent.exists()
    known.parent.mkdir(parents=True)
    known.write_bytes(b"first")
    share_parsing(settings, own.parent)
    assert own.read_bytes() == b"first"
    own.write_bytes(b"parsed here since")
    os.utime(known, ns=(0, own.stat().st_mtime_ns - 1))
    share_parsing(settings, own.parent)
    assert own.read_bytes() == b"parsed here since"
    known.write_bytes(b"parsed for another port")
    os.utime(known, ns=(0, own.stat().st_mtime_ns + 1_000_000_000))
    share_parsing(settings, own.parent)
    assert own.read_bytes() == b"parsed for another port"


@pytest.mark.long
@pytest.mark.parametrize(
    "sql", ["sum(sipHash64(number)) as n from numbers(1000000000000000)", "nonsense from"]
)
def test_a_model_that_does_not_end_or_is_no_sql_fails_alone(stack: Stack, tmp_path: Path, sql: str) -> None:
    shutil.copytree(stack.settings.project_dir / "dbt_project", tmp_path / "dbt_project")
    model = tmp_path / "dbt_project" / "models" / "marts" / "wrong.sql"
    config = "{{ config(materialized='table', tags=['events', 'daily'], contract={'enforced': false}) }}"
    model.write_text(f"{config}\nselect {sql}\n")
    settings = stack.settings.model_copy(
        update={"project_dir": tmp_path, "dbt_schema": "limits", "model_query_seconds": 3}
    )
    stream = streams(settings)["events"]
    stream.prepare()
    stream.close()
    with pytest.raises(Fatal, match=r"models/marts/wrong\.sql"):
        build(settings, stream.pipeline, date(2026, 1, 1), date(2026, 1, 2))
    warehouse = Server(settings)
    made = {name for (name,) in warehouse.query("SELECT name FROM system.tables WHERE database = 'limits'")}
    assert {"events_history", "session_metrics", "conversion_funnel"} <= made
    left = "SELECT count() FROM system.processes WHERE query LIKE '%sipHash64(number)%numbers(1%'"
    left += " AND query NOT LIKE '%system.processes%'"
    eventually(lambda: warehouse.query(left) == [(0,)], 60, "the end of the query")
