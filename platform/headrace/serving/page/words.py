"""Numbers, times and sizes as people read them; the same rules are in ``static/page.js`` for charts."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, timedelta
from typing import Any

NOTHING = "–"
_UNITS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))


def number(value: float | None) -> str:
    """Write a number in up to four digits: 1234 is 1,234, 12345 is 12.3k."""
    if value is None or not math.isfinite(value):
        return NOTHING
    size = abs(value)
    if size >= 10_000:
        unit, letter = next((u, one) for u, one in _UNITS if size >= u * 0.99995)
        return f"{value / unit:.1f}".removesuffix(".0") + letter
    if size >= 100 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:.2f}".rstrip("0").rstrip(".") if size < 10 else f"{value:.1f}".removesuffix(".0")


def exact(value: float | None) -> str:
    """Write a number with all its digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f}" if value == int(value) else f"{value:,.4f}".rstrip("0")


def percent(share: float | None) -> str:
    """Write a share, 0 to 1, in percent."""
    if share is None or not math.isfinite(share):
        return NOTHING
    value = share * 100
    return f"{value:.{0 if abs(value) >= 99.95 or value == 0 else 1 if abs(value) >= 0.05 else 2}f}%"


def seconds(value: float | None) -> str:
    """Write a duration given in seconds."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if value < 1:
        return f"{value * 1000:.0f} ms" if value else "0 s"
    if value < 60:
        return f"{value:.1f}".removesuffix(".0") + " s"
    if value < 3600:
        return (
            f"{value // 60:.0f} min {value % 60:02.0f} s"
            if round(value % 60) < 60
            else f"{value // 60 + 1:.0f} min"
        )
    if value < 86_400:
        return f"{value // 3600:.0f} h {value % 3600 // 60:02.0f} min"
    return f"{value // 86_400:.0f} d {value % 86_400 // 3600:02.0f} h"


def millis(value: float | None) -> str:
    """Write a duration given in milliseconds."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.0f} ms" if value < 10_000 else seconds(value / 1000)


def size(value: float | None) -> str:
    """Write bytes."""
    if value is None:
        return NOTHING
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.{0 if unit == 'B' or value >= 100 else 1}f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"


#: How a unit of the definitions is written.
FORMATS = {"number": number, "percent": percent, "seconds": seconds, "milliseconds": millis, "bytes": size}


def measure(value: Any, form: str) -> str:
    """Write a figure by the name of its format; unknown ones are plain numbers."""
    return FORMATS.get(form, number)(None if value is None else float(value))


def change(now: float | None, before: float | None) -> float | None:
    """Return the relative change; None where there is nothing to compare with."""
    return None if now is None or not before else (now - before) / abs(before)


def moment(at: datetime | None) -> str:
    """Write a moment to the second, in UTC."""
    return NOTHING if at is None else f"{utc(at):%Y-%m-%d %H:%M:%S}"


def utc(at: datetime) -> datetime:
    """Return a moment in UTC; one without a zone is."""
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


def day(of: date) -> str:
    """Write a day: Mon 30 Nov."""
    return f"{of:%a} {of.day} {of:%b}"


def ago(at: datetime | None, now: datetime) -> str:
    """Write how long ago something was."""
    if at is None:
        return "never"
    gone = (now - utc(at)) / timedelta(seconds=1)
    if gone < 2:
        return "now"
    if gone < 90:
        return f"{gone:.0f} s ago"
    if gone < 5400:
        return f"{gone / 60:.0f} min ago"
    return f"{gone / 3600:.0f} h ago" if gone < 129_600 else f"{gone / 86_400:.0f} days ago"


def plural(count: int, one: str, many: str | None = None) -> str:
    """Write a count with its noun."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def cell(value: Any) -> str:
    """Write a value of a row as a table shows it."""
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, datetime):
        return f"{utc(value).replace(tzinfo=None).isoformat(sep=' ')}"
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, list | dict):
        return json.dumps(value, default=cell, ensure_ascii=False)
    return f"{value}"
