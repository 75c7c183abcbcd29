"""A time is what RFC 3339 calls one: in whatever way a message is decoded, and by an oracle of its own."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from builders import event
from headrace.contracts import EVENTS
from headrace.contracts.wire import decode, structs

_DATE_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]+))?"
    r"(?:[Zz]|([+-])([0-9]{2}):([0-9]{2}))"
)
_CALENDAR = timedelta(days=146_097)  # repeats after 400 years


def oracle(text: str) -> datetime | None:
    """By a regular expression and Python's calendar."""
    found = _DATE_TIME.fullmatch(text)
    if found is None:
        return None
    year, month, day, hour, minute, second = map(int, found.groups()[:6])
    fraction, sign, hours, minutes = found.groups()[6:]
    leap = second == 60
    shift = 400 if year <= 400 else -400  # so that neither year 0 nor a zone leads out of datetime's years
    try:
        local = datetime(year + shift, month, day, hour, minute, second - leap, tzinfo=UTC)
    except ValueError:
        return None
    if sign:
        if int(hours) > 23 or int(minutes) > 59:
            return None
        zone = timedelta(hours=int(hours), minutes=int(minutes))
        local = local + zone if sign == "-" else local - zone
    local += timedelta(seconds=leap)
    if leap and (local.day, local.hour, local.minute, local.second) != (1, 0, 0, 0):
        return None
    local += timedelta(microseconds=int((fraction or "")[:6].ljust(6, "0")))
    try:
        return local - _CALENDAR if shift > 0 else local + _CALENDAR
    except OverflowError:
        return None


def decoded(payload: bytes, way: str) -> tuple[datetime | None, list[str]]:
    """``received_at`` and the checks that failed."""
    payloads = pl.Series([payload])
    if way == "msgspec":
        parser = structs.StructParser(EVENTS.wire_fields, EVENTS.unknown, payloads, 10_000)
        found = decode.finished(EVENTS, parser.parsed())
    else:
        found = decode.decode(EVENTS, payloads, 10_000)
    return found.rows["received_at"][0], found.failures.check


def by_all_ways(text: str) -> datetime | None:
    record = event(received_at=text)
    found, checks = decoded(record, "compiled")
    assert checks == ([] if found else ["rfc3339_time_with_zone"])
    assert decoded(record, "msgspec") == (found, checks)
    assert decoded(b"[" + record + b"]", "array") == (found, checks)
    # escapes are resolved first
    escaped = json.dumps(text).replace("T", "\\u0054").encode()
    assert decoded(event(received_at="@").replace(b'"@"', escaped), "compiled") == (found, checks)
    return found


two: Any = st.integers(0, 62).map(lambda n: f"{n:02}")
years: Any = st.integers(0, 9_999) | st.sampled_from([0, 1, 2, 9_998, 9_999, 1900, 2000, 2024])
fractions: Any = st.just("") | st.from_regex(r"\A\.[0-9]{1,14}\Z")
zones: Any = st.sampled_from(["Z", "z", "-00:00", "+23:59", "-23:59"]) | st.builds(
    "{}{:02}:{:02}".format, st.sampled_from("+-"), st.integers(0, 23), st.integers(0, 59)
)
days: Any = st.datetimes().map(lambda t: t.strftime("-%m-%dT%H:%M:%S"))
valid: Any = st.builds(lambda y, rest, f, z: f"{y:04}{rest}{f}{z}", years, days, fractions, zones)
#: Of the right shape; its numbers may be none.
shaped: Any = st.builds(
    "{:04}-{}-{}{}{}:{}:{}{}{}".format,
    years,
    two,
    two,
    st.sampled_from("Tt "),
    two,
    two,
    two,
    fractions,
    zones,
)
leap: Any = st.sampled_from(
    ["1998-12-31T15:59:60.123-08:00", "2016-12-31T23:59:60Z", "1998-12-31T22:59:60Z", "2016-12-31T23:58:60Z",
     "2024-02-29T23:59:60Z", "2024-02-28T23:59:60Z", "1900-03-01T00:59:60+01:00", "2026-01-31T23:59:61Z"]
)  # fmt: skip


@st.composite
def mutated(draw: Any) -> str:
    """A time of which a few characters were lost, added, or became others."""
    text = draw(valid | leap)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(text)))
        put = draw(st.sampled_from(["", "", *"0129T-:.+ Zz,W", "\u2212", "\u0661", "\n", "\0"]))
        text = text[:at] + put + text[at + draw(st.integers(0, 1)) :]
    return str(text)


@settings(max_examples=300, deadline=None)
@given(text=valid | shaped | leap | mutated())
@example("0001-01-01T00:00:00+05:00")
@example("0000-12-31T23:59:59-05:00")
@example("0400-01-01T00:00:00Z")
@example("9999-12-31T23:59:59-05:00")
@example("9999-12-31T23:59:60Z")
@example("9999-12-31T23:59:59.9999999Z")
@example("1969-12-31T23:59:59.9999999Z")
@example("2026-01-02T03:04:05." + "9" * 500 + "Z")
def test_a_time_is_what_the_oracle_says(text: str) -> None:
    assert by_all_ways(text) == oracle(text)


@settings(deadline=None)
@given(text=valid)
def test_most_valid_times_are_times(text: str) -> None:
    # a control of the property above: its oracle does not say no to everything
    year = int(text[:4])
    month_day = text[5:10]
    if 1 < year < 9_999 and month_day != "02-29":
        assert oracle(text) is not None


@pytest.mark.parametrize(
    "text",
    [
        "2026-1-2T3:4:5Z", "T4:36:28", "2026-01-02T4:36:28Z", " 2026-01-02T03:04:05Z", "2026-01-02T03:04:05Z ",
        "2026-01-02T03:04:05+01 00", "2026-01-02T03:04:05+0100", "2026-01-02T03:04:05+01",
        "2026-01-02T03:04:05\u221201:00", "26-01-02T03:04:05Z", "+2026-01-02T03:04:05Z", "12026-01-02T03:04:05Z",
        "2026-01-02T03:04:05", "2026-01-02T03:04Z", "2026-01-02", "2026-01-02T03:04:05UTC", "2026-01-02T03:04:05 Z",
        "2026-01-02  03:04:05Z", "2026-01-02T03:04:05.Z", "2026-01-02T03:04:05,5Z", "2026-01-02T24:00:00Z",
        "2026-02-29T00:00:00Z", "2026-01-02T03:04:60Z", "2026-01-02T03:04:05+24:00", "2026-01-02T03:04:05+01:60",
        "2026-W01-5T03:04:05Z", "2026-01-02_03:04:05Z", "", "now",
        "\u0662\u0660\u0662\u0666-01-02T03:04:05Z",
    ],
)  # fmt: skip
def test_what_only_looks_like_a_time_is_rejected(text: str) -> None:
    assert by_all_ways(text) is None


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("2026-01-02t03:04:05z", 0), ("2026-01-02 03:04:05Z", 0), ("2026-01-02T03:04:05-00:00", 0),
        ("2026-01-03T03:03:05+23:59", 0), ("2026-01-02T03:04:05.1Z", 100_000),
        ("2026-01-02T03:04:05.1234569999999Z", 123_456),
    ],
)  # fmt: skip
def test_what_rfc_3339_allows_is_accepted(text: str, micros: int) -> None:
    assert by_all_ways(text) == datetime(2026, 1, 2, 3, 4, 5, micros, UTC)


def test_a_leap_second_is_the_first_of_the_next_day() -> None:
    assert by_all_ways("2016-12-31T23:59:60.25Z") == datetime(2017, 1, 1, 0, 0, 0, 250_000, UTC)
