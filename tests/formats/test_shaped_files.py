"""CSV and Parquet as they are: other names, nested places, times without a zone, and numbers since 1970."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandera.polars as pa
import polars as pl
import pyarrow as arrow
import pyarrow.parquet as pq
import pytest

from headrace.contracts import EVENTS, Contract, Time, field
from headrace.core.batch import CheckedBatch
from headrace.core.errors import BadData
from headrace.formats.records import FileReader, detect, read_file
from shaped import VISITS

Write = Callable[[str, bytes], Path]
Judge = Callable[..., CheckedBatch]
TEN = datetime(2024, 3, 13, 9, 21, 14, tzinfo=UTC)

CSV = (
    '\ufeff"Time Stamp";"User Name";context.page.url;context.screen.width;items[0].sku;"Price, EUR";n;seen_at;day;'
    "channel;tags;extra\r\n"
    '2024-03-13 10:21:14;" ANNA ";"/a;b";1920;A-1;9.5;3;2024-03-13T10:21:14;13.03.2024;WEB;"[""a""]";x\r\n'
    "1710321674000;bob;;;;-;;never;;;;\r\n"
    "2024-03-31 02:30:00;carl;;;;;;;;;;\r\n"
    "\r\n"
    "13.03.2024;N/A;;wide;;1,5;;;;;;\r\n"
)


def messages(path: Path, contract: Contract = VISITS) -> list[bytes]:
    chunks = list(read_file(path, contract))
    assert not any(chunk.malformed for chunk in chunks)
    return [payload for chunk in chunks for payload in chunk.payloads]


def test_a_csv_of_another_system_is_read_as_it_is(write: Write, judge: Judge) -> None:
    found = judge(VISITS, messages(write("a.csv", CSV.encode())))
    rows = found.good.select(
        "at", "user", "url", "width", "sku", "price", "quantity", "total", "channel"
    ).rows()
    assert rows == [
        (TEN, "anna", "/a;b", 1920, "A-1", 9.5, 3, 28.5, "web"),
        (TEN, "bob", None, 0, None, None, 1, None, None),
    ]
    assert found.good["seen_at"].to_list() == [TEN, None]
    assert found.good["tags"].to_list() == [["a"], []]
    assert [str(day) for day in found.good["day"]] == ["2024-03-13", "None"]
    reasons = [{one["column"]: one["check"] for one in row} for row in found.rejected["reasons"].to_list()]
    format = "time_format(%Y-%m-%d %H:%M:%S or epoch_ms)"
    assert reasons == [
        {"at": "time_in_zone(Europe/Berlin)"},
        {"at": format, "user": "required", "width": "type(integer)", "price": "type(number)"},
    ]
    assert found.unknown == {"extra": 1}


def test_a_nested_value_is_one_in_the_message(write: Write) -> None:
    [first, *_] = messages(write("a.csv", CSV.encode()))
    record = json.loads(first)
    assert record["context"] == {"page": {"url": "/a;b"}, "screen.width": 1920}
    assert record["items"] == [{"sku": "A-1"}]
    assert record["User Name"] == " ANNA "


def test_a_nested_value_may_have_its_fields_name_or_be_in_an_object(write: Write, judge: Judge) -> None:
    by_name = messages(write("a.csv", b"at,user,url,w,sku\n2024-03-13 10:21:14,anna,/x,7,s\n"))
    cells = b'2024-03-13 10:21:14,anna,"{""page"": {""url"": ""/x""}}",7,"[{""sku"": ""s""}]"'
    objects = b"at,user,context,w,items\n" + cells + b"\n"
    for payloads in (by_name, messages(write("b.csv", objects))):
        good = judge(VISITS, payloads).good
        assert good.select("url", "width", "sku").rows() == [("/x", 7, "s")]
    assert detect(write("c", b"User Name\tTime Stamp\n"), VISITS) == "csv"


def test_the_key_of_a_message_is_under_any_of_its_names(write: Write) -> None:
    class Named(pa.DataFrameModel):
        id: pl.String = field("id", alias="Order Id", required=True)
        at: Time = field("when", required=True)

    named = Contract("named", 1, Named, key="id", time="at", partition="day", order_by=("at",))
    for name, content in {
        "a.csv": b"Order Id,at\n7,x\n",
        "a.ndjson": b'{"Order Id": "7"}\n[{"Order Id": "7"}]\n',
    }.items():
        for chunk in read_file(write(name, content), named):
            assert set(chunk.keys) == {b"7"}
    assert {key for chunk in read_file(write("v.csv", CSV.encode()), VISITS) for key in chunk.keys} == {None}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"Time Stamp,User Nam\n1,2\n", "visits has no column 'User Nam'; did you mean 'User Name'?"),
        (
            b"Time Stamp\n1\n",
            "column 'user' is missing, which may also be called 'User Name'; visits requires it",
        ),
        (b"at,user,user\n1,2,3\n", "column 'user' appears twice"),
        (
            b"at,user,context,context.page.url\n",
            "columns 'context' and 'context.page.url' both have 'context.page.url'",
        ),
        (
            b"at,user,url,context.page.url\n",
            "columns 'url' and 'context.page.url' both have 'context.page.url' of",
        ),
    ],
)
def test_a_header_that_does_not_fit_is_named(write: Write, content: bytes, said: str) -> None:
    with pytest.raises(BadData, match=said.replace("?", r"\?")):
        messages(write("a.csv", content))


def test_a_computed_column_is_unknown_in_a_file(write: Write, judge: Judge) -> None:
    path = write("a.csv", b"at,user,shop\n2024-03-13 10:21:14,anna,other\n")
    found = judge(VISITS, messages(path))
    assert (found.good["shop"].to_list(), found.unknown) == (["shop-7"], {"shop": 1})
    with pytest.raises(BadData, match="column 'shop' is computed by visits; leave it out"):
        messages(path, replace(VISITS, unknown="reject"))


def test_a_header_may_have_other_delimiters_in_quotes(write: Write, judge: Judge) -> None:
    content = b'at;user;"Price, EUR"\n2024-03-13 10:21:14;anna;2\n'
    assert judge(VISITS, messages(write("a.csv", content))).good["price"].to_list() == [2.0]


def parquet(**columns: Any) -> bytes:
    file = io.BytesIO()
    pq.write_table(arrow.table(columns), file)
    return file.getvalue()


LOCAL = arrow.array([datetime(2024, 3, 13, 10, 21, 14), datetime(2024, 3, 31, 2, 30)], arrow.timestamp("us"))
PLACE = arrow.array([{"page": {"url": "/x"}, "screen.width": 7}, None])


def test_parquet_of_another_system_is_read_as_it_is(write: Write, judge: Judge) -> None:
    content = parquet(**{
        "Time Stamp": arrow.array([1710321674000, 1710321674000]), "User Name": [" ANNA ", "bob"], "seen_at": LOCAL,
        "context": PLACE, "items": arrow.array([[{"sku": "A"}], []]), "n": [2.0, 3.0], "Price, EUR": ["-", None],
    })  # fmt: skip
    found = judge(VISITS, messages(write("a.parquet", content)))
    assert found.good.select("at", "seen_at", "user", "url", "width", "sku", "quantity", "price").rows() == [
        (TEN, TEN, "anna", "/x", 7, "A", 2, None)
    ]
    [[reason]] = found.rejected["reasons"].to_list()
    assert (reason["check"], reason["column"]) == ("time_in_zone(Europe/Berlin)", "seen_at")


def test_parquet_times_without_a_zone_need_one_at_the_field(write: Write) -> None:
    class Local(pa.DataFrameModel):
        id: pl.String = field("id", required=True)
        at: Time = field("when", required=True)

    local = Contract("local", 1, Local, key="id", time="at", partition="day", order_by=("at",))
    path = write("a.parquet", parquet(id=["a", "b"], at=LOCAL))
    with pytest.raises(BadData, match=r"times of column 'at' have no zone.*or say their zone at the field"):
        messages(path, local)

    class Zoned(Local):
        at: Time = field("when", required=True, zone="UTC")

    assert json.loads(messages(path, replace(local, model=Zoned))[0])["at"].startswith("2024-03-13T10:21:14")


def test_parquet_values_that_are_times_already_need_a_format_that_reads_them(write: Write) -> None:
    path = write("a.parquet", parquet(at=LOCAL, user=["a", "b"]))
    with pytest.raises(BadData, match=r"field 'at' would read in format '%Y-%m-%d %H:%M:%S'; add 'iso8601'"):
        messages(path)


def test_a_file_of_the_lake_is_read_without_what_is_computed(write: Write, judge: Judge) -> None:
    class Made(pa.DataFrameModel):
        id: pl.String = field("id", hashed=("user",), required=True)
        at: Time = field("when", required=True)
        user: pl.String = field("who", path="a.user", required=True)

    made = Contract("made", 1, Made, key="id", time="at", partition="day", order_by=("at",))
    good = judge(made, [b'{"at": "2024-03-13T00:00:00Z", "a": {"user": "u"}}']).good
    file = io.BytesIO()
    good.write_parquet(file)
    again = judge(made, messages(write("a.parquet", file.getvalue()), made))
    assert again.good.select("id", "at", "user").equals(good.select("id", "at", "user"))
    assert again.unknown == {}


def test_what_a_reader_remembers_of_files_ends_with_other_places() -> None:
    class Renamed(VISITS.model):  # type: ignore[name-defined,misc]
        url: pl.String = field("page", path="context.url")

    assert FileReader(VISITS).version != FileReader(replace(VISITS, model=Renamed)).version
    assert FileReader(VISITS).version == FileReader(replace(VISITS)).version
    assert FileReader(EVENTS).version == "events v1 count by content"
