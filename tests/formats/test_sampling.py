"""A sample of a file: its first rows, rows from everywhere, and how many there are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.contracts.inference import Sample
from headrace.core.errors import BadData
from headrace.formats import sampling
from headrace.formats.sampling import sample_file

Write = Callable[[str, bytes], Path]


def sampled(path: Path, rows: int = 100) -> Sample:
    return sample_file(lambda: path.open("rb"), str(path), rows)


def ndjson(count: int) -> bytes:
    return b"".join(b'{"n": %d}\n' % n for n in range(count))


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zstandard.compress])
def test_lines_are_from_everywhere_and_all_are_counted(write: Write, pack: Callable[[bytes], bytes]) -> None:
    found = sampled(write("a.ndjson", pack(ndjson(10_000))))
    values = [record["n"] for record in found.records]
    assert (len(values), values[:50]) == (100, list(range(50)))
    assert values == sorted(set(values)), "each once, in order"
    assert sum(n > 5_000 for n in values[50:]) in range(10, 41)
    assert (found.total, found.exact) == (10_000, True)
    assert found.numbers == [n + 1 for n in values]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 400), st.integers(1, 50))
def test_a_sample_is_as_large_as_it_may_be(count: int, most: int) -> None:
    chosen = sampling._Chosen[int](most, lambda _: 8)
    chosen.take(range(count))
    assert chosen.seen == count
    assert len(chosen.rows()) == min(count, most)
    assert all(number == row + 1 for number, row in chosen.rows())


def test_memory_is_bounded_by_bytes(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_HELD_BYTES", 20_000)
    found = sampled(write("a.ndjson", b'{"text": "%s"}\n' % (b"x" * 985) * 500), 100)
    assert len(found.records) in range(18, 24)
    assert found.total == 500


def test_a_huge_file_is_estimated(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "_READ_BYTES", 1 << 20)
    found = sampled(write("a.ndjson", b'{"n": 123456}\n' * 400_000))
    assert not found.exact
    assert found.total == pytest.approx(400_000, rel=0.3)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_cells_of_a_csv_with_any_delimiter(write: Write, delimiter: str) -> None:
    rows = "".join(f'{n}{delimiter}"a{delimiter}\n""b"""{delimiter}\r\n' for n in range(300))
    found = sampled(write("a.txt", f"n{delimiter}text{delimiter}none\r\n{rows}".encode("utf-8-sig")))
    assert found.kind == "csv"
    assert found.records[0] == {"n": "0", "text": f'a{delimiter}\n"b"'}
    assert (len(found.records), found.total) == (100, 300)
    assert list(found.types) == ["n", "text", "none"]


def test_lines_that_are_no_records_are_counted_by_reason(write: Write) -> None:
    found = sampled(write("a.ndjson", b'{"n": 1}\nnot json\n[{"n": 2}, 3]\n\n\xff\n'))
    assert [record["n"] for record in found.records] == [1, 2]
    assert {reason: (w.count, w.example) for reason, w in found.wrong.items()} == {
        "not JSON": (1, "row 2: not json"),
        "JSON, but no object": (1, 'row 3: [{"n": 2}, 3]'),
        "not UTF-8": (1, "row 4: \\xff"),
    }
    found = sampled(write("a.csv", b"a,b\n1,2\n1,2,3\n\xff,2\n1,2\n"))
    assert len(found.records) == 2
    assert set(found.wrong) == {"3 fields, the header has 2", "not UTF-8"}


def test_numbers_keep_their_digits(write: Write) -> None:
    found = sampled(write("a.ndjson", b'{"price": 12.50, "id": 12345678901234567890123}\n'))
    assert found.records == [{"price": Decimal("12.50"), "id": 12345678901234567890123}]


def test_rows_of_parquet_are_what_becomes_of_them(tmp_path: Path) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    table = pa.table(
        {
            "n": pa.array(range(40_000), pa.int32()),
            "at": pa.array([at] * 40_000, pa.timestamp("ms", "UTC")),
            "span": pa.array([timedelta(seconds=1)] * 40_000),
            "bytes": pa.array([b"\xff"] * 40_000),
            "labels": pa.array([[{"key": "a", "value": "b"}]] * 40_000),
        }
    )
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, row_group_size=3_000)
    found = sampled(path, 800)
    values = [record["n"] for record in found.records]
    assert (len(values), found.total) == (800, 40_000)
    assert min(values) == 0 and max(values) > 35_000
    assert found.numbers == [n + 1 for n in values]
    assert found.records[0] | {"bytes": ""} == {
        "n": 0, "at": "2026-01-02T00:00:00.000000Z", "span": "PT1S", "bytes": "", "labels": {"a": "b"}
    }  # fmt: skip
    assert found.binary == {"bytes"}
    assert found.types["n"] == pa.int32()
    pq.write_table(table.slice(0, 0), path)
    assert (sampled(path).records, sampled(path).total) == ([], 0)


REFUSED: list[tuple[str, bytes, str]] = [
    ("a.csv", b"", "is empty"),
    ("a.csv", b"\n\n", "is empty"),
    ("a.json", b'[\n  {"n": 1}\n]\n', "is JSON over many lines"),
    (
        "a.csv",
        b"1,2024-01-01\n2,2024-01-02\n",
        "the first line seems to be data ('1'), not the columns' names",
    ),
    ("a.csv", b"a,a\n1,2\n", "column 'a' appears twice"),
    ("a.csv", b",,\n1,2,3\n", "the first line names no columns"),
    ("a.csv", b"n\xe4me\n1\n", "the header is not UTF-8"),
    ("a.dat", b"\x00\x01\x02", "neither NDJSON, CSV nor Parquet"),
    ("a.dat", b"some words\nmore words\n", "cannot tell the format"),
    ("a.parquet", b"a,b\n1,2\n", "is named parquet but is not"),
    ("a.parquet", b"PAR1 and nothing", "cannot be read"),
    ("a.ndjson.gz", gzip.compress(ndjson(9_000))[:-9], "cannot be read"),
    (
        "access.log",
        b'1.2.3.4 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1\n',
        "is a web server's access log",
    ),
]


@pytest.mark.parametrize(("name", "content", "said"), REFUSED)
def test_what_cannot_be_sampled_is_said_in_one_line(
    write: Write, name: str, content: bytes, said: str
) -> None:
    with pytest.raises(BadData) as error:
        sampled(write(name, content))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.text(max_size=5), st.one_of(st.integers(), st.text(), st.none())), max_size=20
    )
)
def test_a_message_is_what_json_says(records: list[dict[str, Any]]) -> None:
    sample = Sample("a", "json")
    for n, record in enumerate(records):
        sample.add_message(n, json.dumps(record).encode())
    assert sample.records == records
