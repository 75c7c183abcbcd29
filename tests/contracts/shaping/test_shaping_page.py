"""The page on contracts is executed: its record becomes the row that it shows."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pytest

from headrace.bench import shaping as bench
from headrace.contracts import Contract, Time, Was, field
from headrace.contracts.schema import json_schema
from headrace.core.batch import CheckedBatch

PAGE = (Path(__file__).parents[3] / "docs" / "contracts.md").read_text()


@pytest.fixture
def names() -> dict[str, Any]:
    """What the page's blocks define."""
    found: dict[str, Any] = {
        "pa": pa, "pl": pl, "Contract": Contract, "Time": Time, "Was": Was, "field": field,
    }  # fmt: skip
    for block in re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL):
        exec(compile(block, "contracts.md", "exec", dont_inherit=True), found)
    return found


def test_the_record_of_the_page_becomes_its_row(
    names: dict[str, Any], judge: Callable[..., CheckedBatch]
) -> None:
    [message] = re.findall(r"^```json\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    found = judge(
        names["CARTS"], [message.encode(), message.replace("13.03.2024 10:21", "31.03.2024 02:30").encode()]
    )
    row = found.good.row(0, named=True)
    shown: dict[str, str] = {}
    [shaping] = re.findall(r"^## Shape a field$.*?(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL)
    for columns, values in re.findall(r"^\| (`\w+`(?:, `\w+`)*) \| (.*) \|$", shaping, flags=re.MULTILINE):
        shown |= zip(re.findall(r"\w+", columns), values.strip("`").split(", "), strict=True)
    assert shown.keys() == {column.name for column in names["CARTS"].columns}
    said = {name: "null" if row[name] is None else str(row[name]) for name in shown}
    said["at"] = f"{row['at']:%Y-%m-%d %H:%M:%S} UTC"
    assert said == shown
    [[reason]] = found.rejected["reasons"].to_list()
    assert (reason["check"], reason["column"]) == ("time_in_zone(Europe/Berlin)", "at")
    assert f"`{reason['check']}`" in PAGE
    assert "Time Stamp" in json_schema(names["CARTS"])["properties"]


def test_the_table_of_costs_has_what_is_measured() -> None:
    rows = re.findall(r"^\| ([\w, ]+?) \| [\d.]+ \| [\d.]+ \| [+-][\d.]+ \|$", PAGE, flags=re.MULTILINE)
    assert rows == [case.name for case in bench.CASES]
