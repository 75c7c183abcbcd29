"""Times in declared formats are what Python's own readers make of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from headrace.contracts.shaping.formats import format_faults, program, zoned
from headrace.contracts.shaping.times import check_of, read_times
from headrace.contracts.wire.decoded import Failures
from headrace.core.errors import Fatal

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FORMATS = (
    "%Y-%m-%d %H:%M:%S",
    "%Y-%m-%d %H:%M:%S.%f",
    "%d.%m.%Y %H:%M",
    "%m/%d/%y %I:%M %p",
    "%d %b %Y %H:%M:%S",
    "%B %d, %Y at %I:%M:%S%p",
    "%Y%m%d-%H%M%S",
    "%a, %d %b %Y %H:%M:%S %z",
    "%Y-%m-%dT%H:%M:%S%z",
    "[%F %T] 100%%",
    "%Y-%m-%d",
)
ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "Asia/Kolkata",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
)


def found(
    texts: Sequence[str | None], formats: str | tuple[str, ...], zone: str = "", **options: Any
) -> tuple[list[Any], list[tuple[int, str, str]]]:
    failures = Failures()
    several = (formats,) if isinstance(formats, str) else formats
    read = read_times("at", pl.Series(texts, dtype=pl.String), several, zone, failures, **options)
    assert set(failures.column) <= {"at"}
    return read.to_list(), list(zip(failures.row, failures.check, failures.value, strict=True))


def strptime(text: str, format: str) -> datetime | None:
    """Python's reading, where ours is meant to be the same: ASCII, a fraction cut off, whole names or short ones."""
    whole = format.replace("%F", "%Y-%m-%d").replace("%T", "%H:%M:%S")
    cut = re.sub(r"(\.\d{6})\d+", r"\1", text) if "%f" in whole else text
    if "%z" in whole:
        if re.search(r"[+-]\d\d:?\d\d:?\d\d(\.\d+)?$", cut[-12:]):
            return None
        cut = re.sub(r"([+-]\d\d)$", r"\1:00", cut)
    for either in {whole, whole.replace("%b", "%B"), whole.replace("%B", "%b")}:
        try:
            return datetime.strptime(cut, either)
        except ValueError:
            continue
    return None


def in_zone(local: datetime, zone: str) -> datetime | None:
    """The earlier of two instants with this wall clock; None if no clock shows it."""
    moment = local.replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return moment if moment.astimezone(ZoneInfo(zone)).replace(tzinfo=None) == local else None


moments = st.datetimes(datetime(1971, 1, 1), datetime(2036, 12, 31)) | st.sampled_from(
    [
        datetime(2024, 3, 31, 2, 30), datetime(2024, 10, 27, 2, 30), datetime(2024, 2, 29), datetime(2000, 2, 29, 12),
        datetime(2018, 11, 4, 0, 30), datetime(2024, 4, 7, 1, 45), datetime(2024, 3, 10, 2, 0),
        datetime(2024, 12, 31, 23, 59, 59),
    ]
)  # fmt: skip


@st.composite
def written(draw: Any, format: str) -> str:
    moment: datetime = draw(moments)
    text = moment.replace(tzinfo=UTC).strftime(format)
    if draw(st.booleans()):
        text = re.sub(r"(?<!\d)0(\d)(?!\d)", r"\1", text) if "%Y%m" not in format else text
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(text)))
        put = draw(st.sampled_from(["", *"0123456789", "-", ":", " ", ".", "/", "+"]))
        text = text[:at] + put + text[at + draw(st.integers(0, 1)) :]
    return text


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data(), zone=st.sampled_from(ZONES))
def test_strftime_is_pythons(format: str, data: st.DataObject, zone: str) -> None:
    texts = data.draw(st.lists(written(format), min_size=1, max_size=6))
    values, reasons = found(texts, format, zone)
    failed = {row: check for row, check, _ in reasons}
    for row, (text, value) in enumerate(zip(texts, values, strict=True)):
        if "%Y%m%d" in format and not re.fullmatch(r"\d{8}-\d{6}", text):
            continue  # digits without anything between them: Python shares them out as they happen to fit
        expected = strptime(text, format)
        if expected is None:
            assert (value, failed[row]) == (None, check_of((format,), zone)), text
        elif expected.tzinfo is not None:
            assert value == expected.astimezone(UTC), text
        elif not 1900 < expected.year < 2038:
            assert (
                value is not None
            )  # zones are data there, of which the two libraries have different editions
        elif (moment := in_zone(expected, zone)) is None:
            assert (value, failed[row]) == (None, f"time_in_zone({zone})"), text
        else:
            assert value == moment, text
    assert len(reasons) == values.count(None)


@settings(max_examples=200, deadline=None)
@given(
    number=st.decimals(-(10**13), 10**13, allow_nan=False, places=7)
    | st.integers(-(10**17), 10**17).map(Decimal)
    | st.from_regex(r"\A-?(0|[1-9][0-9]{0,12})(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?\Z").map(Decimal),
    unit=st.sampled_from(["epoch_s", "epoch_ms", "epoch_us"]),
    quoted=st.booleans(),
)
@example(Decimal("-0.0000005"), "epoch_s", False)
@example(Decimal("1710325274.123456999"), "epoch_s", True)
@example(Decimal("1.710325274e9"), "epoch_s", False)
@example(Decimal("253402300800"), "epoch_s", False)
def test_numbers_since_1970_are_exact(number: Decimal, unit: str, quoted: bool) -> None:
    micros = (number * {"epoch_s": 10**6, "epoch_ms": 10**3, "epoch_us": 1}[unit]).to_integral_value(
        "ROUND_FLOOR"
    )
    text = str(number)
    [value], reasons = found([text], unit, quoted=pl.Series([quoted]))
    digits = number.as_tuple().digits
    if -62_135_596_800_000_000 <= micros <= 253_402_300_799_999_999 and len(digits) <= 18:
        assert value == EPOCH + timedelta(microseconds=int(micros))
        assert not reasons
    elif value is None:
        assert reasons == [(0, f"time_format({unit})", text)]
    else:
        assert value == EPOCH + timedelta(microseconds=int(micros))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "1.",
        ".5",
        "01",
        "1e",
        "+1",
        "1 ",
        "0x1",
        "1_0",
        "NaN",
        "1e30",
        "9" * 25,
        "true",
        "2024-01-01",
    ],
)
def test_what_is_no_number_is_no_epoch(text: str) -> None:
    assert found([text], "epoch_ms") == ([None], [(0, "time_format(epoch_ms)", text)])


ISO = {
    "2024-03-13T10:21:14": "2024-03-13T10:21:14",
    "2024-03-13 10:21": "2024-03-13T10:21:00",
    "2024-03-13t10:21:14,5": "2024-03-13T10:21:14.500000",
    "2024-03-13T10:21:14.1234567899": "2024-03-13T10:21:14.123456",
    "2024-03-13 10:21:14Z": "2024-03-13T10:21:14+00:00",
    "2024-03-13 10:21:14+01": "2024-03-13T10:21:14+01:00",
    "2024-03-13 10:21:14.25 UTC": "2024-03-13T10:21:14.250000+00:00",
    "2024-03-13 10:21:14 -0730": "2024-03-13T10:21:14-07:30",
    "2024-03-13 10:21:14  +01": None,
    "2024-03-13T10:21-0530": "2024-03-13T10:21:00-05:30",
    "2024-03-13T10:21:14.5+01:00": "2024-03-13T10:21:14.500000+01:00",
    "2016-12-31T23:59:60Z": "2017-01-01T00:00:00+00:00",
    "2024-03-13": None,
    "2024-3-13 10:21:14": None,
    "2024-02-30T10:21:14": None,
    "2024-03-13T24:00:00": None,
    "2024-03-13T10:60:00": None,
    "2024-03-13T10:21:60": None,
    "2024-03-13T10:21:14 ": None,
    "2024-03-13T10:21:14.": None,
    "2024-03-13T10:21:14+1": None,
    "2024-03-13T10:21:14+24:00": None,
    "2024-03-13T1021": None,
    "20240313T102114Z": None,
    "0000-01-01T00:00:00": None,
    "": None,
}


@pytest.mark.parametrize(("text", "iso"), ISO.items())
def test_iso_8601_has_a_zone_or_gets_one(text: str, iso: str | None) -> None:
    [value], reasons = found([text], "iso8601", "Asia/Kolkata")
    if iso is None:
        assert (value, reasons) == (None, [(0, "time_format(iso8601)", text)])
        return
    moment = datetime.fromisoformat(iso)
    assert value == (moment if moment.tzinfo else moment.replace(tzinfo=ZoneInfo("Asia/Kolkata")))
    if moment.tzinfo is None:
        assert found([text], "iso8601") == ([None], [(0, "time_with_zone", text)])


def test_a_zone_alone_takes_rfc_3339_without_one() -> None:
    texts = ["2024-07-01T12:00:00", "2024-07-01 12:00:00.5", "2024-07-01T12:00:00Z", "2024-07-01T12:00", None]
    values, reasons = found(texts, "rfc3339", "Europe/Berlin")
    assert [value and value.hour for value in values] == [10, 10, 12, None, None]
    assert reasons == [(3, "rfc3339_time", "2024-07-01T12:00")]
    assert found(texts[:1], "rfc3339") == ([None], [(0, "rfc3339_time_with_zone", texts[0])])


def test_the_first_format_that_fits_counts() -> None:
    formats = ("%d/%m/%Y", "%m/%d/%Y", "epoch_s")
    values, reasons = found(["1/2/2024", "1/13/2024", "86400", "13/13/2024", None], formats, "UTC")
    assert [value and (value.month, value.day) for value in values] == [(2, 1), (1, 13), (1, 2), None, None]
    assert reasons == [(3, "time_format(%d/%m/%Y or %m/%d/%Y or epoch_s)", "13/13/2024")]


def test_a_number_is_a_time_only_as_an_epoch() -> None:
    texts, quoted = ["20240313", "20240313"], pl.Series([True, False])
    values, reasons = found(texts, "%Y%m%d", "UTC", quoted=quoted)
    assert values == [datetime(2024, 3, 13, tzinfo=UTC), None]
    assert reasons == [(1, "time_format(%Y%m%d)", "20240313")]
    values, _ = found(texts, ("%Y%m%d", "epoch_s"), "UTC", quoted=quoted)
    assert values == [datetime(2024, 3, 13, tzinfo=UTC), EPOCH + timedelta(seconds=20240313)]


def test_dates_are_those_of_the_wall_clock() -> None:
    values, reasons = found(["31.12.2024", "32.12.2024"], "%d.%m.%Y", date=True)
    assert values == [date(2024, 12, 31), None]
    assert reasons == [(1, "date_format(%d.%m.%Y)", "32.12.2024")]
    assert found(["2024-12-31T23:30:00Z"], "iso8601", date=True)[0] == [date(2024, 12, 31)]
    assert found(["2024-12-31T23:30:00Z"], "iso8601", "Europe/Berlin", date=True)[0] == [date(2025, 1, 1)]
    assert found(["2024-12-31T23:30:00"], "iso8601", "Europe/Berlin", date=True)[0] == [date(2024, 12, 31)]


def test_a_zone_that_polars_lacks_is_named() -> None:
    with pytest.raises(Fatal, match=r"field 'at': Polars .* does not know the time zone 'Mars/Base'"):
        found(["2024-01-01T00:00:00"], "iso8601", "Mars/Base")


def test_the_end_of_the_calendar_is_refused_and_not_wrapped() -> None:
    assert found(["0001-01-01T00:00:00"], "iso8601", "Asia/Kolkata")[0] == [None]
    assert found(["9999-12-31T23:59:59"], "iso8601", "America/New_York")[0] == [None]
    assert found(["0001-01-01T00:00:00+05:00"], "iso8601")[0] == [None]


@pytest.mark.parametrize(
    ("format", "text"),
    [
        ("%Y-%j", "2024-366"), ("%d %b %Y", "3 SEPTEMBER 2024"), ("%d %B %Y", "3 sep 2024"), ("%e.%m.%Y", " 3.09.2024"),
        ("%Y-%m-%d %H:%M:%S %Z", "2024-09-03 00:00:00 UTC"), ("%A, %Y-%m-%d", "Tuesday, 2024-09-03"),
    ],
)  # fmt: skip
def test_names_and_numbers_of_days(format: str, text: str) -> None:
    [value], _ = found([text], format, "UTC")
    assert value == (
        datetime(2024, 12, 31, tzinfo=UTC) if "%j" in format else datetime(2024, 9, 3, tzinfo=UTC)
    )


@pytest.mark.parametrize(
    ("format", "text"), [("%Y-%j", "2023-366"), ("%Y-%j", "2024-0"), ("%d %b %Y", "3 Sepp 2024")]
)
def test_days_that_are_none(format: str, text: str) -> None:
    assert found([text], format, "UTC")[0] == [None]


WRONG = {
    "yyyy-MM-dd": "has format='yyyy-MM-dd': it has no directive like %Y, and is none of rfc3339",
    "%Y-%m-%d %Q": "%Q is no directive for reading; there are %",
    "%Y-%m-%d %": "% is no directive for reading",
    "%d.%m. %H:%M": "it has no year",
    "%Y-%d": "it has no month",
    "%Y-%m": "it has no day",
    "%Y-%m-%d %I:%M": "%I needs %p",
    "%Y-%m-%d %H:%M %p": "%I needs %p",
    "%Y-%m-%d %Y": "it has the year twice",
    "%Y-%m-%d %H:%M:%S": "without a zone, so that every time would be rejected; say which one they are in",
    "": "has format='', which is no text",
}


@pytest.mark.parametrize("format", WRONG)
def test_a_format_that_reads_nothing_is_refused(format: str) -> None:
    said = list(format_faults(format, date=False, zone=""))
    assert len(said) == 1
    assert WRONG[format] in said[0]


def test_formats_that_are_right() -> None:
    for format in FORMATS:
        assert not list(format_faults(format, date=False, zone="UTC"))
    assert not list(format_faults("%d.%m.%Y", date=True, zone=""))
    assert [zoned(format) for format in ("epoch_s", "rfc3339", "iso8601", "%F %z", "%F")] == [
        True,
        True,
        False,
        True,
        False,
    ]
    assert program("%F") == program("%Y-%m-%d")
