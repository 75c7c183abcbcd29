"""Choose key, time and sorting key of a stream, each with its reason."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
import polars as pl

from headrace.contracts.check import Limits
from headrace.contracts.inference.layout import Code
from headrace.contracts.inference.names import free
from headrace.contracts.inference.proposal import Proposal, listed
from headrace.contracts.inference.sample import Sample
from headrace.contracts.inference.scalars import ENOUGH
from headrace.core.batch import UTC_MICROS

#: Names of ids, the likeliest first, and how likely they are.
_IDS = (
    (re.compile(r"^(id|uuid|guid|event_id|message_id|record_id|event_uuid|key)$"), 100),
    (re.compile(r"(^|_)(uuid|guid)$"), 80),
    (re.compile(r"_id$|_key$|^id_|(^|_)(nr|no|number|code|reference|ref|hash|serial)$"), 60),
)
#: Names of whose a record is, which repeat.
_OTHERS_IDS = re.compile(
    r"^(user|customer|session|visitor|visit|account|device|client|product|item|page|parent|request)(_|$)"
)
#: Names of the moment of an event, and of other moments.
_MOMENTS = re.compile(
    r"^(occurred_at|event_time|event_timestamp|timestamp|ts|time|datetime|occurred|happened_at)$"
)
_CREATED = re.compile(
    r"^(created|placed|sent|started|begin|start|measured|logged|observed)(_at|_time|_on|_ts)?$"
)
_OTHER_MOMENTS = re.compile(
    r"(^|_)(updated|modified|received|ingested|expires?|deleted|valid|birth|processed|end|ended)"
)
#: A key that repeats more rarely is still one: producers send twice.
_MOST_REPEATS = 0.02
#: Fields that a generated key hashes.
_MOST_HASHED = 12
_IDENTIFYING = frozenset({"text", "uuid", "integer"})
_COMPARABLE = frozenset({"text", "uuid", "integer", "number", "decimal", "boolean", "date", "time"})


@dataclass(slots=True)
class Roles:
    """What a contract says beside its fields.

    Attributes:
        key: Name of the column that identifies a record.
        time: Name of the column with the time.
        order_by: Sorting key.
        partition: Name of the date column.
        why: Reasons, by role.
        decide: What a person has to decide, by role.
        repeats: Records that repeat another one wholly.
    """

    key: str = ""
    time: str = ""
    order_by: tuple[str, ...] = ()
    partition: str = ""
    why: dict[str, str] = field(default_factory=dict)
    decide: dict[str, list[str]] = field(default_factory=dict)
    repeats: int = 0


def choose(proposals: list[Proposal], sample: Sample, stream: str, now: datetime) -> Roles:
    """Choose the roles; adds a column where there is none for key or time.

    Args:
        proposals: The proposed columns; a generated key or time goes in front.
        sample: What they were learnt from.
        stream: Name of the stream.
        now: The time (UTC), after which nothing can have happened.
    """
    roles = Roles(repeats=_repeats(sample))
    _time(roles, proposals, len(sample.records), now)
    _key(roles, proposals, sample, stream)
    _order(roles, proposals, len(sample.records))
    stem = stream.removesuffix("s") or stream
    taken = {p.name.lower() for p in proposals}
    roles.partition = next(
        n for n in (f"{stem}_date", f"{stem}_day", free("partition_date", taken)) if n not in taken
    )
    return roles


def _repeats(sample: Sample) -> int:
    """Count the records that are the same as an earlier one, whatever the order of their fields."""
    encoder = msgspec.json.Encoder(order="sorted", decimal_format="number")
    return len(sample.records) - len({hash(encoder.encode(record)) for record in sample.records})


def _time(roles: Roles, proposals: list[Proposal], records: int, now: datetime) -> None:
    times = _likeliest(proposals, "time")
    if not times:
        made = _made_time(roles, proposals, now)
        made.series = pl.Series([now], dtype=UTC_MICROS).new_from_index(0, records)
        proposals.insert(0, made)
        roles.time = made.name
        return
    one = times[0]
    one.arguments["required"] = True
    roles.time = one.name
    roles.why["time"] = "never missing" if one.whole else "the likeliest of the times"
    decide = roles.decide.setdefault("time", [])
    if one.missing:
        decide.append(f"{one.missing:,} of {records:,} records have none and will be rejected")
    if others := [p.name for p in times[1:] if p.whole]:
        decide.append(f"{listed(others)} would do as well")
    _say_outside(roles, one, now)


def _likeliest(proposals: Sequence[Proposal], kind: str) -> list[Proposal]:
    """Order the columns of a kind: those that are never missing first, then by name."""
    return sorted((p for p in proposals if p.kind == kind), key=lambda p: (not p.whole, -_momentous(p.name)))


def _made_time(roles: Roles, proposals: Sequence[Proposal], now: datetime) -> Proposal:
    """Make a time where there is none: of a date, or the same for all."""
    made = Proposal((), "time", "Time", {"required": True})
    made.name = free("occurred_at", {p.name.lower() for p in proposals})
    if dates := _likeliest(proposals, "date"):
        day = dates[0]
        day.arguments["required"] = True
        made.arguments["derive"] = Code(f'pl.col("{day.name}").cast(pl.Datetime("us", "UTC"))')
        made.seen = f"made of {day.name}: midnight, UTC"
        roles.why["time"] = f"midnight of {day.name}: there is no time of day"
        return made
    made.arguments["constant"] = Code(f"datetime({now.year}, {now.month}, {now.day}, tzinfo=UTC)")
    made.seen = "the same for every record"
    roles.why["time"] = "none is in the sample, so every record gets the same day"
    roles.decide["time"] = [
        "every stream needs the time of its events, which tables are divided by; let producers send one, and name it"
        " here. This constant puts all records into one day"
    ]
    return made


def _momentous(name: str) -> int:
    if _OTHER_MOMENTS.search(name):
        return -1
    return 3 if _MOMENTS.match(name) else 2 if _CREATED.match(name) else 0


def _say_outside(roles: Roles, one: Proposal, now: datetime) -> None:
    limits = Limits()
    outside = int(
        ((one.series < limits.event_time_min) | (one.series > now + limits.event_time_ahead)).sum() or 0
    )
    if outside:
        roles.decide.setdefault("time", []).append(
            f"{outside:,} times of the sample are before {limits.event_time_min:%Y-%m-%d} (HEADRACE_EVENT_TIME_MIN) or"
            f" more than {limits.event_time_ahead // timedelta(hours=1)} h ahead (HEADRACE_EVENT_TIME_AHEAD), and"
            " will be rejected"
        )


def _key(roles: Roles, proposals: list[Proposal], sample: Sample, stream: str) -> None:
    records = len(sample.records)
    likely = sorted(_ids(proposals, stream, records), key=lambda one: (-(one[1] == records), -one[0]))
    if likely:
        _, different, one = likely[0]
        one.arguments["required"] = True
        roles.key = one.name
        again = records - different
        if again:
            roles.why["key"] = f"named like an id; {again:,} of {records:,} records repeat one"
            roles.decide["key"] = [
                "repeats stay in raw and are recognised by this key: see that they are the same record"
            ]
        elif records < ENOUGH:
            roles.why["key"] = (
                f"named like an id; that it repeats in none of {records:,} records shows little"
            )
        else:
            roles.why["key"] = f"never missing, different in each of {records:,} records"
        others = [p.name for _, n, p in likely[1:] if n == records and records >= ENOUGH]
        if others:
            roles.decide.setdefault("key", []).append(f"{listed(others)} would do as well")
        return
    fields = [p for p in proposals if p.kind in _COMPARABLE and p.path]
    hashed = _hashed(fields, roles.time, records)
    made = Proposal((), "text", "pl.String", {"hashed": tuple(p.name for p in hashed), "required": True})
    made.name = free("record_id", {p.name.lower() for p in proposals})
    made.seen = "a hash of the fields that it names"
    roles.key = made.name
    roles.why["key"] = f"no field identifies a record; this is a hash of {len(hashed)} fields"
    decide = roles.decide.setdefault("key", [])
    unique = [p.name for p in fields if p.kind in _IDENTIFYING and p.whole and p.series.n_unique() == records]
    if unique and records >= ENOUGH:
        decide.append(f"{listed(unique[:3])} never repeats; if it identifies a record, name it here")
    if roles.repeats:
        decide.append(
            f"{roles.repeats:,} of {records:,} records repeat another one wholly and get its key: they count as sent"
            ' twice. If each is an event of its own, write hashed="position"'
        )
    same = records - _different(hashed, records) - roles.repeats
    if same > 0:
        decide.append(f"{same:,} more records get the key of another one, from which they differ elsewhere")
    proposals.insert(0, made)


def _ids(proposals: list[Proposal], stream: str, records: int) -> Iterator[tuple[int, int, Proposal]]:
    """Yield columns that may identify a record: how likely, how many different values, and which."""
    own = f"{stream.removesuffix('s')}_id"
    for one in proposals:
        if one.kind not in _IDENTIFYING or not one.whole:
            continue
        score = next((score for pattern, score in _IDS if pattern.search(one.name)), 0)
        score = 95 if one.name == own else score - 50 if _OTHERS_IDS.match(one.name) else score
        if one.kind == "uuid":
            score = max(score, 40)
        different = one.series.n_unique()
        if records < ENOUGH and _OTHERS_IDS.match(one.name) and one.name != own:
            continue  # somebody else's id, which does not repeat because there are few records
        strong = score >= 80 and records - different <= _MOST_REPEATS * records
        if score > 0 and (different == records or strong):
            yield score, different, one


def _hashed(fields: Sequence[Proposal], time: str, records: int) -> list[Proposal]:
    """Choose the fields of a generated key: those that tell records apart, all of them if there are few."""
    if len(fields) <= _MOST_HASHED:
        return list(fields)
    ranked = sorted(fields, key=lambda p: (p.name != time, -p.series.n_unique()))
    names = {p.name for p in ranked[:_MOST_HASHED]}
    chosen = [p for p in fields if p.name in names]
    return chosen if _different(chosen, records) == _different(fields, records) else list(fields)


def _different(fields: Sequence[Proposal], records: int) -> int:
    return pl.DataFrame([p.series.alias(p.name) for p in fields]).n_unique() if fields and records else 0


def _order(roles: Roles, proposals: list[Proposal], records: int) -> None:
    """Sort by few values first, then by whose it is, then by time: what queries filter by."""
    sure = [
        p for p in proposals if p.required and p.name not in (roles.key, roles.time) and records >= ENOUGH
    ]
    few = sorted(
        (p for p in sure if p.arguments.get("low_cardinality") and p.series.n_unique() > 1),
        key=lambda p: p.series.n_unique(),
    )
    whose = [
        p
        for p in sure
        if p.kind in _IDENTIFYING
        and p not in few
        and any(r.search(p.name) for r in (*dict(_IDS), _OTHERS_IDS))
    ]
    whose.sort(key=lambda p: not _OTHERS_IDS.match(p.name))
    chosen = [p.name for p in few[:1] + whose[:1]]
    roles.order_by = (*chosen, roles.time)
    roles.why["order_by"] = (
        "few values first, then whose it is, then the time" if chosen else "the time alone"
    )
