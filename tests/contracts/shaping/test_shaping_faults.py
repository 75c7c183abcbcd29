"""What a field declares about its shaping is verified at import, with field, value and choices."""

from __future__ import annotations

import itertools
import subprocess
import sys
import zoneinfo
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from builders import contract_in
from headrace.contracts import Contract
from headrace.contracts.faults import faults
from headrace.contracts.shaping import faults as shaping_faults
from headrace.core.errors import Fatal
from shaped import VISITS

MODEL = """
from typing import Annotated

import pandera.polars as pa
import polars as pl

from headrace.contracts import Contract, Time, field


class Orders(pa.DataFrameModel):
    \"\"\"An order.\"\"\"

    order_id: pl.String = field("id", required=True)
    at: Time = field("when", required=True)
    price: pl.Float64 = field("EUR")
    {field}

    class Config:
        strict = True


contract = Contract(name="orders", version=1, model=Orders, key="order_id", time="at", partition="order_date",
                    order_by=("at",){more})
"""
_count = itertools.count()


@pytest.fixture
def declared(tmp_path: Path) -> Callable[..., Contract]:
    """``declared(line)``: a contract from a file whose model has this line, or these lines, too."""

    def made(line: str = "", more: str = "") -> Contract:
        text = MODEL.format(field=line.replace("\n", "\n    "), more=more)
        return contract_in(tmp_path / f"shaped_{next(_count)}.py", text)

    return made


#: By the lines of a model: what is said of them.
FIELDS = {
    'x: pl.String = field("x", alias="x")': "field 'x' has alias='x', its own name, which counts anyway",
    'x: pl.String = field("x", alias=("a", "a"))': "with a name twice",
    'x: pl.String = field("x", alias="")': "has alias='', which is no name; write alias='ts'",
    'x: pl.String = field("x", alias=5)': "has alias=5, which is no name",
    'x: pl.String = field("x", alias="price")': "fields 'price' and 'x' are both read from 'price'; derive one",
    'x: pl.String = field("x", alias="a")\ny: pl.String = field("y", alias="a")': "both read from 'a'",
    'x: pl.String = field("x", path="a.b")\ny: pl.Float64 = field("y", path="$.a.b")': "both read from 'a.b'",
    'x: pl.String = field("x", path="a..b")': "has path='a..b', which is no place: it breaks at '..b'",
    'x: pl.String = field("x", path="$[0].b")': "it begins with no name; write it like 'context.page.url'",
    'x: pl.String = field("x", path="a[x]")': "it breaks at '[x]'",
    'x: pl.String = field("x", path="")': "it begins with no name",
    'x: pl.String = field("x", path=3)': "has path=3, which is no place: it is no text",
    'x: pl.String = field("x", path="a[0]")\ny: pl.String = field("y", path="a.b")': "as an object and as a list",
    'x: pl.String = field("x", format="%Y-%m-%d")': "has format='%Y-%m-%d', which is for times and dates",
    'x: pl.String = field("x", zone="UTC")': "has zone='UTC', which is for times and dates",
    'x: Time = field("x", format="%Y-%m-%d %Q", zone="UTC")': "%Q is no directive for reading; there are %a",
    'x: Time = field("x", format=("iso8601", "iso8601"))': "with a format twice",
    'x: Time = field("x", format=7)': "has format=7, which is no text and no tuple of texts",
    'x: Time = field("x", format="%Y-%m-%d")': "without a zone, so that every time would be rejected",
    'x: Time = field("x", zone="Europe/Berln")': "which is no time zone (IANA); did you mean 'Europe/Berlin'?",
    'x: Time = field("x", zone="+01:00")': "has zone='+01:00', which is no time zone",
    'x: Time = field("x", zone=1)': "has zone=1, which is no time zone",
    'x: Time = field("x", format="epoch_s", zone="UTC")': "which is never used: times in format='epoch_s' have",
    'x: pl.Date = field("x", zone="UTC")': "dates as YYYY-MM-DD have none; say their format",
    'x: pl.Int32 = field("x", lower=True)': "has lower=True, which is for text, not for a field of JSON type integer",
    'x: pl.Int32 = field("x", strip=True)': "has strip=True, which is for text, times and dates",
    'x: pl.String = field("x", lower="yes")': "has lower='yes', which is neither True nor False",
    'x: pl.String = field("x", nulls=())': "has nulls=(), which are no texts; write nulls=('', 'N/A')",
    'x: pl.String = field("x", nulls=(None, "a"))': "which are no texts",
    'x: pl.Int32 = field("x", constant="a")': "has constant 'a', which is no Int32",
    'x: pl.Int32 = field("x", constant=2**40)': "has constant 1099511627776, which is no Int32",
    'x: pl.Boolean = field("x", constant=1)': "has constant 1, which is no Boolean",
    'x: pl.String = field("x", constant="ab", length=(3, 4))': "which its own str_length(min_value=3, max_value=4)",
    'x: pl.String = field("x", wire="object", constant="{}")': "a field of JSON type object takes none",
    'x: pl.String = field("x", constant="a", alias="b")': "so that it is not read from the message; take alias= away",
    'x: pl.String = field("x", constant="a", path="b")': "take path= away",
    'x: pl.String = field("x", hashed="payload", default="b")': "take default= away",
    'x: pl.String = field("x", constant="a", hashed="payload")': "has constant= and hashed=; choose one",
    'x: pl.Float64 = field("x", derive=pl.col("prize") * 2)': "has derive= of 'prize', which is no field; did you mean",
    'x: pl.Float64 = field("x", derive=pl.all())': "of several columns; name one with pl.col",
    'x: pl.Float64 = field("x", derive=pl.col("x") + 1)': "are computed from each other in a circle: x -> x",
    'x: pl.Float64 = field("x", derive=pl.col("y"))\ny: pl.Float64 = field("y", derive=pl.col("x"))': "x -> y -> x",
    'x: pl.String = field("x", hashed=("order_id", "prise"))': "has hashed= of 'prise', which is no field",
    'x: pl.Int64 = field("x", hashed="order_id")': "gives text of 32 hexadecimal digits; declare it pl.String",
    'x: pl.String = field("x", hashed="x")': "in a circle: x -> x",
}


@pytest.mark.parametrize("lines", FIELDS)
def test_a_declaration_that_cannot_be_kept_is_refused(declared: Callable[..., Contract], lines: str) -> None:
    with pytest.raises(Fatal) as refused:
        declared(lines)
    assert str(refused.value).startswith("contract 'orders': field")
    assert FIELDS[lines] in str(refused.value)


ROLES: list[tuple[dict[str, Any], str]] = [
    ({"key": "note"}, "key 'note' has landed=False, but the tables need it"),
    ({"order_by": ("note", "at")}, "order_by 'note' has landed=False"),
    ({"transform": 5}, "transform 5 is no function of a pl.DataFrame"),
]


@pytest.mark.parametrize(("changes", "said"), ROLES)
def test_what_the_tables_need_lands(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(Fatal) as refused:
        replace(VISITS, **changes)
    assert said in str(refused.value)


RIGHT = [
    'x: pl.String = field("x", alias=("a b", "größe", "A"))',
    'x: pl.String = field("x", path="a[\'b.c\'][0].d")',
    'x: pl.String = field("x", path="$.x")',
    'x: pl.String = field("x", wire="object", path="a")\ny: pl.String = field("y", path="a.b")',
    'x: Time = field("x", format=("rfc3339", "epoch_ms"), zone="UTC")',
    'x: pl.Date = field("x", format="epoch_s", zone="America/New_York")',
    'x: pl.Int32 = field("x", nulls="-", strip=True)',
    'x: pl.Float64 = field("x", derive=pl.col("price").fill_null(0), required=True)',
    'x: pl.String = field("x", hashed="position", required=True, length=(32, 32))',
    'x: Annotated[pl.Enum, ["a", "b"]] = field("x", constant="a", lower=False)',
    'x: pl.Boolean = field("x", constant=False)',
    'x: pl.String = field("x", landed=False)',
]


@pytest.mark.parametrize("lines", RIGHT)
def test_what_is_right_passes(declared: Callable[..., Contract], lines: str) -> None:
    contract = declared(lines)
    assert contract.shaping is not None
    assert "x" in {column.name for column in contract.fields}


def test_a_field_without_declarations_has_no_shaping(declared: Callable[..., Contract]) -> None:
    assert declared('x: pl.String = field("x", lower=False, strip=False, landed=True)').shaping is None


def test_every_zone_is_one() -> None:
    wrong = [zone for zone in zoneinfo.available_timezones() if not shaping_faults._is_zone(zone)]
    assert set(wrong) <= {"Factory", "localtime"}
    assert not any(map(shaping_faults._is_zone, ["Europe", "posix/UTC", "../UTC", "utc", "Factory", ""]))


def test_the_contract_of_the_other_tests_is_right() -> None:
    assert faults(VISITS) == []
    names = {column.name for column in VISITS.columns}
    assert names == {column.name for column in VISITS.fields} - {"note"}
    assert not {"note"} & set(VISITS.landed_schema.names()) & set(VISITS.table.comments)


THREADS = """
import os, sys
import headrace.pipelines
sys.path.insert(0, sys.argv[1])
before = len(os.listdir("/proc/self/task"))
import shaped
print(before, len(os.listdir("/proc/self/task")), shaped.VISITS.shaping is not None, shaped.VISITS.wire_fields[0].name)
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads are counted by Linux")
def test_declaring_starts_no_threads_which_forked_workers_would_wait_for() -> None:
    folder = str(Path(__file__).parents[2])
    done = subprocess.run([sys.executable, "-c", THREADS, folder], capture_output=True, text=True, check=True)
    before, after, *_ = done.stdout.split()
    assert before == after
