"""A contract that declares every kind of shaping, and what plain Python makes of its records."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

import pandera.polars as pa
import polars as pl

from builders import NOW
from headrace.contracts import Contract, Time, field

ZONE = "Europe/Berlin"


class Visits(pa.DataFrameModel):
    """A visit of a page, as an older system sends it."""

    visit_id: pl.String = field("key of user and moment", hashed=("user", "at"), required=True)
    at: Time = field(
        "when", alias=("ts", "Time Stamp"), format=("%Y-%m-%d %H:%M:%S", "epoch_ms"), zone=ZONE, required=True
    )
    seen_at: Time = field("when it was seen", zone=ZONE, strip=True, nulls=("never",))
    day: pl.Date = field("the shop's day", format="%d.%m.%Y")
    user: pl.String = field(
        "who", alias="User Name", lower=True, strip=True, nulls=("", "N/A"), required=True, length=(1, 20)
    )
    url: pl.String = field("page", path="context.page.url")
    width: pl.Int32 = field("of the screen", path="$.context['screen.width']", alias="w", default=0, ge=0)
    sku: pl.String = field("first thing in the basket", path="items[0].sku")
    price: pl.Float64 = field("EUR", nulls=("-", ""), alias="Price, EUR")
    quantity: pl.Int64 = field("pieces", alias=("qty", "n"), default=1)
    channel: Annotated[pl.Enum, ["web", "app"]] = field("where", lower=True)
    tags: Annotated[pl.List, pl.String] = field("labels", alias="Tags")
    total: pl.Float64 = field("EUR", derive=pl.col("price") * pl.col("quantity"), lt=1e9)
    shop: pl.String = field("which shop", constant="shop-7", low_cardinality=True)
    note: pl.String = field("read, checked and dropped", landed=False, length=(0, 10))

    class Config:
        """Refuse columns that the model does not name."""

        strict = True


VISITS = Contract(
    name="visits",
    version=1,
    model=Visits,
    key="visit_id",
    time="at",
    partition="visit_date",
    order_by=("user", "at"),
)
VISIT: dict[str, Any] = {"at": "2024-03-13 10:21:14", "user": "anna"}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = datetime(2000, 1, 1, tzinfo=UTC)
WRONG = object()


def expected(record: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """What a record's columns are, of those that are read, and which of them are wrong; one object per record."""
    values: dict[str, Any] = {}
    for name, read in _READ.items():
        values[name] = read(record)
    wrong = {name for name, value in values.items() if value is WRONG}
    wrong |= {name for name in ("at", "user") if values[name] is None}
    if isinstance(values["at"], datetime) and not FIRST <= values["at"] <= NOW:
        wrong.add("at")
    if isinstance(values["user"], str) and not 1 <= len(values["user"]) <= 20:
        wrong.add("user")
    if isinstance(values["note"], str) and len(values["note"]) > 10:
        wrong.add("note")
    if isinstance(values["width"], int) and values["width"] < 0:
        wrong.add("width")
    price, quantity = values["price"], values["quantity"]
    values["total"] = None if {None, WRONG} & {price, quantity} else price * quantity
    if values["total"] is not None and values["total"] >= 1e9:
        wrong.add("total")
    return values, wrong


def _first(record: dict[str, Any], *names: str) -> Any:
    return next((record[name] for name in names if record.get(name) is not None), None)


def _text(value: Any) -> Any:
    return value if value is None or isinstance(value, str) else WRONG


def _at(record: dict[str, Any]) -> Any:
    value = _first(record, "at", "ts", "Time Stamp")
    if isinstance(value, int) and not isinstance(value, bool):
        return EPOCH + timedelta(milliseconds=value)
    if not isinstance(value, str):
        return value if value is None else WRONG
    return _local(value, "%Y-%m-%d %H:%M:%S")


def _local(text: str, format: str) -> Any:
    try:
        local = datetime.strptime(text, format)
    except ValueError:
        return WRONG
    moment = local.replace(tzinfo=ZoneInfo(ZONE)).astimezone(UTC)
    return moment if moment.astimezone(ZoneInfo(ZONE)).replace(tzinfo=None) == local else WRONG


def _seen_at(record: dict[str, Any]) -> Any:
    value = _text(record.get("seen_at"))
    if value is None or value is WRONG:
        return value
    value = value.strip()
    if value == "never":
        return None
    if value.endswith("Z"):
        found = _local(value[:-1], "%Y-%m-%dT%H:%M:%S")
        return (
            WRONG
            if found is WRONG
            else datetime.strptime(value[:-1], "%Y-%m-%dT%H:%M:%S").replace(tzinfo=UTC)
        )
    return _local(value, "%Y-%m-%dT%H:%M:%S")


def _day(record: dict[str, Any]) -> Any:
    value = _text(record.get("day"))
    try:
        return value if value in (None, WRONG) else datetime.strptime(value, "%d.%m.%Y").date()
    except ValueError:
        return WRONG


def _user(record: dict[str, Any]) -> Any:
    value = _text(_first(record, "user", "User Name"))
    if value in (None, WRONG):
        return value
    value = value.strip().lower()
    return None if value in ("", "n/a") else value


def _context(record: dict[str, Any]) -> Any:
    value = record.get("context")
    return {} if value is None else value if isinstance(value, dict) else WRONG


def _url(record: dict[str, Any]) -> Any:
    context = _context(record)
    if context is WRONG:
        return WRONG
    page = context.get("page")
    if page is None:
        return None
    return _text(page.get("url")) if isinstance(page, dict) else WRONG


def _whole(value: Any, most: int) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value):
        return WRONG
    return int(value) if -most - 1 <= value <= most else WRONG


def _width(record: dict[str, Any]) -> Any:
    context = _context(record)
    if context is WRONG:
        return WRONG
    value = _first({**record, " ": context.get("screen.width")}, " ", "w")
    if value is None:
        return None if "screen.width" in context or "w" in record else 0
    return _whole(value, 2**31 - 1)


def _sku(record: dict[str, Any]) -> Any:
    items = record.get("items")
    if items is None or items == []:
        return None
    if not isinstance(items, list):
        return WRONG
    first = items[0]
    return None if first is None else _text(first.get("sku")) if isinstance(first, dict) else WRONG


def _price(record: dict[str, Any]) -> Any:
    value = _first(record, "price", "Price, EUR")
    if value is None or value in ("-", ""):
        return None
    return WRONG if isinstance(value, bool) or not isinstance(value, int | float) else float(value)


def _quantity(record: dict[str, Any]) -> Any:
    names = ("quantity", "qty", "n")
    value = _first(record, *names)
    if value is None:
        return None if any(name in record for name in names) else 1
    return _whole(value, 2**63 - 1)


def _channel(record: dict[str, Any]) -> Any:
    value = _text(record.get("channel"))
    if value in (None, WRONG):
        return value
    return value.lower() if value.lower() in ("web", "app") else WRONG


def _tags(record: dict[str, Any]) -> Any:
    value = _first(record, "tags", "Tags")
    if value is None:
        return []
    right = isinstance(value, list) and all(one is None or isinstance(one, str) for one in value)
    return value if right else WRONG


_READ: dict[str, Callable[[dict[str, Any]], Any]] = {
    "at": _at, "seen_at": _seen_at, "day": _day, "user": _user, "url": _url, "width": _width, "sku": _sku,
    "price": _price, "quantity": _quantity, "channel": _channel, "tags": _tags,
    "note": lambda record: _text(record.get("note")),
}  # fmt: skip
#: Names at the top of a message that the contract knows.
KNOWN = frozenset(
    {*_READ, "ts", "Time Stamp", "User Name", "context", "w", "items", "Price, EUR", "qty", "n", "Tags"}
    - {"url", "width", "sku"}
)
