"""Files become messages; what is no record is counted and shown."""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.contracts import EVENTS, METRICS
from headrace.contracts.unknown import Policy
from headrace.core.batch import STRING_MAP, CheckedBatch
from headrace.core.errors import BadData
from headrace.formats import base, records
from headrace.formats.records import FileChunk, FileReader, read_file

Write = Callable[[str, bytes], Path]
EVENT = {
    "event_id": "1",
    "event_type": "click",
    "occurred_at": "2026-01-01T00:00:00Z",
    "session_id": "s1",
    "channel": "web",
}
LINE = msgspec.json.encode(EVENT)


def read(path: Path, contract: Any = EVENTS, **options: Any) -> FileChunk:
    """All chunks as one."""
    whole = FileChunk()
    for chunk in read_file(path, contract, **options):
        whole.payloads += chunk.payloads
        whole.keys += chunk.keys
        whole.malformed += chunk.malformed
    return whole


def test_ndjson_lines_are_sent_untouched(write: Write) -> None:
    spaced = b'{ "session_id" : "s2", "duration_ms": 1.50 }'
    array = b"[" + LINE + b"," + LINE + b"]"
    got = read(write("a.ndjson", b"\xef\xbb\xbf" + b"\n".join([LINE, b"", spaced, b"  ", array, b"{}"])))
    assert got.payloads == [LINE, spaced, array, b"{}"]
    assert got.keys == [b"s1", b"s2", b"s1", None]
    assert got.read == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"flight", "not JSON"),
        (b'{"a":1', "not JSON"),
        (b'{"a":NaN}', "not JSON"),
        (b"[1,", "not JSON"),
        (b'{"a":"\xff"}', "not UTF-8"),
        (b"42", "neither an object nor an array"),
        (b'"text"', "neither an object nor an array"),
        (b"[" * 100_000, "not JSON"),
        (b"\x00\x1b[2J", "not JSON"),
    ],
)
def test_lines_that_are_no_json_are_counted_and_shown(write: Write, line: bytes, reason: str) -> None:
    got = read(write("a.ndjson", LINE + b"\n\n" + line + b"\r\n" + LINE))
    assert got.payloads == [LINE, LINE]
    (bad,) = got.malformed
    assert bad.line == 3
    assert bad.reason.startswith(reason)
    assert bad.start.isprintable()
    assert len(bad.start) <= 4 * base.SHOWN_CHARACTERS
    assert str(bad).startswith(f"line 3: {reason}")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    content=st.binary(max_size=400), name=st.sampled_from(["a.ndjson", "a.csv", "a.parquet", "a.log", "a"])
)
def test_any_content_is_counted_or_bad_data(write: Write, content: bytes, name: str) -> None:
    with suppress(BadData):
        got = read(write(name, content))
        assert got.read == len(got.payloads) + len(got.malformed)


def test_overlong_lines_are_set_aside(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_LINE_BYTES", 300)
    got = read(write("a.ndjson", LINE + b"\n" + b"x" * 1_000 + b"\n" + LINE + b"\n" + b"y" * 300))
    assert got.payloads == [LINE, LINE]
    assert [(m.line, m.reason) for m in got.malformed] == [
        (2, "longer than 300 bytes"),
        (4, "longer than 300 bytes"),
    ]


def test_chunks_are_bounded(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "CHUNK", 10)
    path = write("a.ndjson", (LINE + b"\nbroken\n") * 12)
    assert [c.read for c in read_file(path, EVENTS)] == [10, 10, 4]


CSV = (
    "event_id,event_type,occurred_at,session_id,channel,duration_ms,properties,schema_version,user_id\n"
    '1,click,2026-01-01T00:00:00Z,s1,web,12.5,"{""a"": 1}",1,\n'
    "2,click,2026-01-01T00:00:00Z,007,web,,,,42\n"
    '3,"say ""hi"", you",2026-01-01T00:00:00Z,s1,web,nan,a=1,x,"two\nlines"\n'
)


def test_csv_is_typed_by_the_contract(write: Write) -> None:
    got = read(write("a.csv", CSV.encode()))
    common = {"event_type": "click", "occurred_at": "2026-01-01T00:00:00Z", "channel": "web"}
    one = {
        "event_id": "1",
        "session_id": "s1",
        "duration_ms": 12.5,
        "properties": {"a": 1},
        "schema_version": 1,
    }
    # what is no number and no JSON stays text, for the contract to refuse with its reason
    odd = {"duration_ms": "nan", "properties": "a=1", "schema_version": "x", "user_id": "two\nlines"}
    assert [msgspec.json.decode(p) for p in got.payloads] == [
        {**common, **one},
        {**common, "event_id": "2", "session_id": "007", "user_id": "42"},
        {**common, "event_id": "3", "event_type": 'say "hi", you', "session_id": "s1", **odd},
    ]
    assert got.keys == [b"s1", b"007", b"s1"]


@pytest.mark.parametrize(
    ("cell", "number", "integer"),
    [
        ("1", b"1", b"1"),
        ("1.0", b"1.0", b"1.0"),  # as pandas writes integers of a column with gaps
        ("-1e3", b"-1e3", b"-1e3"),
        (" 2 ", b"2", b"2"),
        ("0.1000000000000000055", b"0.1000000000000000055", b"0.1000000000000000055"),
        ("9007199254740993", b"9007199254740993", b"9007199254740993"),
        ("007", b"7.0", b"7"),
        ("+5", b"5.0", b"5"),
        ("-05", b"-5.0", b"-5"),
        (".5", b"0.5", b"0.5"),
        ("5.", b"5.0", b"5.0"),
        ("1_000", b'"1_000"', b'"1_000"'),
        ("\u0661", '"\u0661"'.encode(), '"\u0661"'.encode()),
        ("nan", b'"nan"', b'"nan"'),
        ("inf", b'"inf"', b'"inf"'),
        ("0x1F", b'"0x1F"', b'"0x1F"'),
        ("1,5", b'"1,5"', b'"1,5"'),
        ("--1", b'"--1"', b'"--1"'),
    ],
)
def test_a_csv_number_is_what_is_written_there(
    write: Write, cell: str, number: bytes, integer: bytes
) -> None:
    header = "event_id;event_type;occurred_at;session_id;channel;duration_ms;schema_version\n"
    (payload,) = read(write("a.csv", f"{header}1;a;t;s;web;{cell};{cell}\n".encode())).payloads
    assert payload.endswith(b'"duration_ms":' + number + b',"schema_version":' + integer + b"}")


def test_csv_with_other_delimiters(write: Write) -> None:
    expected = read(write("a.csv", CSV.encode())).payloads
    for name, delimiter in (("b.csv", ";"), ("b.tsv", "\t")):
        rows = pl.read_csv(io.BytesIO(CSV.encode()), infer_schema=False).write_csv(separator=delimiter)
        assert read(write(name, rows.encode())).payloads == expected


def test_csv_rows_that_do_not_fit_are_counted_and_shown(write: Write) -> None:
    rows = "session_id,event_id,event_type,occurred_at,channel\n"
    rows += "s,1,a,t,web\ns,2,a\n\ns,3,a,t,web,extra\ns,4,a,t,web\n"
    got = read(write("a.csv", rows.encode() + b"s,\xff,a,t,web\n"))
    assert [msgspec.json.decode(p)["event_id"] for p in got.payloads] == ["1", "4"]
    assert [(m.line, m.reason) for m in got.malformed] == [
        (3, "3 fields, the header has 5"),
        (5, "6 fields, the header has 5"),
        (7, "not UTF-8"),
    ]


def test_a_csv_quote_that_never_closes_does_not_swallow_the_file_silently(write: Write) -> None:
    rows = (
        "event_id,event_type,occurred_at,session_id,channel\n1,a,t,s,web\n" + '"' + "2,a,t,s,web\n" * 20_000
    )
    got = read(write("a.csv", rows.encode()))
    assert got.malformed
    assert got.malformed[0].reason.startswith("not CSV")


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("event_id,event_typ", "events has no column 'event_typ'; did you mean 'event_type'?"),
        ("event_id,event_id", "column 'event_id' appears twice"),
        ("event_id,event_type", "column 'occurred_at' is missing; events requires it"),
    ],
)
def test_csv_headers_are_checked(write: Write, header: str, said: str) -> None:
    with pytest.raises(BadData) as caught:
        read(write("a.csv", header.encode() + b"\n1,2\n"))
    assert said in str(caught.value)


@pytest.mark.parametrize("unknown", ["count", "keep", "reject"])
def test_columns_that_the_contract_does_not_name_are_fields_of_their_records(
    write: Write, tmp_path: Path, judge: Callable[..., CheckedBatch], unknown: Policy
) -> None:
    contract = replace(METRICS, unknown=unknown)
    table = (
        metrics_table()
        .drop("dimensions")
        .with_columns(country=pl.Series(["DE", None]), day=pl.date(2026, 1, 1))
    )
    table.write_parquet(tmp_path / "m.parquet")
    text = table.with_columns(pl.col("occurred_at").dt.strftime("%Y-%m-%dT%H:%M:%SZ")).write_csv()
    for path in (tmp_path / "m.parquet", write("m.csv", text.encode())):
        if unknown == "reject":
            with pytest.raises(BadData, match="metrics has no column 'country'; the columns are"):
                [*read_file(path, contract)]
            continue
        [chunk] = read_file(path, contract)
        found = judge(contract, [*chunk.payloads])
        assert (found.good.height, found.rejected.height) == (2, 0), found.rejected
        assert found.unknown == {"country": 1, "day": 2}
        if unknown == "keep":
            assert found.good["_extra"].to_list() == [
                '{"country":"DE","day":"2026-01-01"}',
                '{"day":"2026-01-01"}',
            ]


def metrics_table() -> pl.DataFrame:
    return pl.DataFrame(
        {
            "metric_id": ["1", "2"],
            "name": ["temp", "temp"],
            "kind": ["gauge", "gauge"],
            "value": [1.5, -2.0],
            "unit": [None, "degF"],
            "source": ["a", "b"],
            "occurred_at": [datetime(2026, 1, 1, 0, 0, 0, 5, UTC), datetime(2026, 1, 2, tzinfo=UTC)],
            "dimensions": pl.Series([[{"key": "k", "value": "v"}], []], dtype=STRING_MAP),
        }
    )


@pytest.mark.parametrize("dimensions", ["list", "text", "struct"])
def test_parquet_passes_the_contract(
    tmp_path: Path, judge: Callable[..., CheckedBatch], dimensions: str
) -> None:
    table = metrics_table()
    if dimensions == "text":
        table = table.with_columns(dimensions=pl.Series(['{"k": "v"}', None]))
    elif dimensions == "struct":
        table = table.with_columns(dimensions=pl.Series([{"k": "v"}, None]))
    path = tmp_path / "m.parquet"
    table.with_columns(_offset=pl.lit(1), metric_date=pl.lit("x")).write_parquet(path)
    got = read(path, METRICS)
    assert got.keys == [b"1", b"2"]
    checked = judge(METRICS, got.payloads)
    assert checked.rejected.is_empty()
    landed = checked.good.select(table.columns).with_columns(pl.col("dimensions").list.len())
    assert landed.equals(metrics_table().with_columns(pl.col("dimensions").list.len()))


@pytest.mark.parametrize("squeeze", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("kind", ["ndjson", "csv", "parquet", "log"])
def test_compressed_files_read_like_plain_ones(
    write: Write, tmp_path: Path, squeeze: Callable[[bytes], bytes], kind: str
) -> None:
    content = {
        "ndjson": LINE * 1,
        "csv": CSV.encode(),
        "log": b'1.1.1.1 - - [01/Jan/2026:00:00:00 +0100] "GET / HTTP/1.1" 200 5\n',
    }
    if kind == "parquet":
        pl.DataFrame([{**EVENT, "occurred_at": datetime(2026, 1, 1, tzinfo=UTC)}]).write_parquet(
            tmp_path / "e.parquet"
        )
        content["parquet"] = (tmp_path / "e.parquet").read_bytes()
    plain = read(write(f"plain.{kind}", content[kind]))
    assert plain.payloads
    assert read(write(f"packed.{kind}.gz", squeeze(content[kind]))).payloads == plain.payloads


def test_a_cut_off_file_is_bad_data(write: Write) -> None:
    packed = gzip.compress(b"\n".join(b'{"session_id":"%d"}' % (n * 7_919) for n in range(50_000)))
    with pytest.raises(BadData, match="is it complete"):
        read(write("a.ndjson.gz", packed[: len(packed) // 2]))
    with pytest.raises(BadData, match="is it complete"):
        read(write("b.parquet", b"PAR1" + b"x" * 100))


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "a.parquet",
            LINE,
            "is named parquet but is not; it looks like ndjson: rename it, or send it with --format ndjson",
        ),
        ("a.dat", b"hello\nworld", "cannot tell the format"),
        (
            "a.csv",
            b'1.1.1.1 - - [01/Jan/2026:00:00:00 +0100] "GET / HTTP/1.1" 200 5',
            "rename it, or send it with --format access_log",
        ),
        ("a", b"", "cannot tell the format"),
    ],
)
def test_wrong_names_say_the_next_step(write: Write, name: str, content: bytes, said: str) -> None:
    with pytest.raises(BadData) as caught:
        read(write(name, content))
    assert said in str(caught.value)


def test_formats_are_told_by_content(write: Write) -> None:
    assert records.detect(write("app.log", LINE), EVENTS) == "ndjson"
    assert records.detect(write("export.txt", CSV.encode()), EVENTS) == "csv"
    assert records.detect(write("events.csv", b""), EVENTS) == "csv"


def test_the_format_can_be_said(write: Write) -> None:
    assert read(write("a.dat", LINE), format="ndjson").payloads == [LINE]
    with pytest.raises(BadData, match="an access log holds events, not metrics"):
        read(write("b.dat", LINE), METRICS, format="access_log")
    with pytest.raises(BadData, match="is not a file"):
        read(Path("missing.ndjson"))


def test_a_zstandard_file_that_was_cut_off_is_not_taken_for_one_that_has_ended(write: Write) -> None:
    packed = zstandard.compress(b"\n".join(b'{"session_id":"%d"}' % (n * 7_919) for n in range(50_000)))
    assert len(read(write("a.ndjson.zst", packed)).payloads) == 50_000
    for cut in (10, len(packed) // 2, len(packed) - 1):
        with pytest.raises(BadData, match="is it complete"):
            read(write("b.ndjson.zst", packed[:cut]))


def records_of(content: bytes, name: str, contract: Any = EVENTS) -> list[base.Record]:
    return list(FileReader(contract).records(lambda: io.BytesIO(content), name))


HEADER = b"event_id,event_type,occurred_at,session_id,channel\n"
LOG = b'1.1.1.1 - - [01/Jan/2026:00:00:00 +0100] "GET / HTTP/1.1" 200 5\n'


@pytest.mark.parametrize(
    ("name", "start", "line"),
    [
        ("a.ndjson", b"", b'{"a":"\xff\x00'),
        ("a.ndjson", b"", b"  42\t"),
        ("a.csv", HEADER, b'1,a,t,"two\nlines \xfe",web,"extra"'),
        ("a.csv", HEADER, b"1,\xff,t,s,web"),
        ("a.csv", HEADER, b'1,"a"b,t,s,web'),
        ("a.log", LOG, b'1.1.1.1 - - "GET \xff'),
    ],
)
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_malformed_line_comes_with_its_untouched_bytes(
    name: str, start: bytes, line: bytes, end: bytes
) -> None:
    raw, key, wrong = records_of(start + line + end, name)[-1]
    assert (raw, key) == (line, None)
    assert wrong is not None


def test_of_an_overlong_line_the_beginning_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_LINE_BYTES", 300)
    for name, start in (("a.ndjson", b""), ("a.csv", HEADER)):
        got = records_of(start + b"x" * 1_000 + b"\n" + b"y" * 10 + b"\n", name)
        assert [raw for raw, _, _ in got] == [b"x" * 300, b"y" * 10]
        assert all(wrong for _, _, wrong in got)


CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5)


@settings(deadline=None)
@given(rows=st.lists(st.lists(CELLS, max_size=7).filter(lambda row: len(row) != 5 and any(row)), max_size=6))
def test_no_byte_of_csv_rows_that_do_not_fit_is_lost(rows: list[list[str]]) -> None:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    content = text.getvalue().encode()
    got = records_of(HEADER + content, "a.csv")
    assert all(wrong for _, _, wrong in got)
    assert len(got) == len(rows)
    kept = b"\r\n".join(raw for raw, _, _ in got)
    assert kept == content.removesuffix(b"\r\n")
