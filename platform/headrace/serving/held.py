"""Describe what the warehouse holds, so that an answer has a key: docs/adr/0056.

Two things say it. Parts of tables have block numbers, which ClickHouse gives them: any insert, replaced partition or
mutation makes another one, a merge makes none. And the bookkeeping of Headrace says what was published and built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

#: Stands for the table itself among its partitions: its id and definition.
WHOLE = ""


@dataclass(frozen=True, slots=True, order=True)
class Published:
    """A lake version in the warehouse.

    Attributes:
        epoch: How often the lake had come back with another history.
        version: The version.
        at: When it was published, UTC, ISO 8601.
    """

    epoch: int
    version: int
    at: str


@dataclass(frozen=True, slots=True)
class Relation:
    """A table or view.

    Attributes:
        partition_key: What it is partitioned by; empty for nothing.
        view: Whether it has no rows of its own.
        marks: A mark by partition, which changes whenever its rows do; ``WHOLE`` for the definition.
    """

    partition_key: str
    view: bool
    marks: Mapping[str, str]


@dataclass(frozen=True)
class Held:
    """What the warehouse held at a moment.

    Attributes:
        digest: Of all marks: two that are equal held the same.
        relations: By full name.
        published: The newest version by stream.
        touched: The newest version that changed a day, by stream and day.
        built: The version that the models of a day were last built from, by stream and day, with the time of the build.
    """

    digest: str
    relations: Mapping[str, Relation] = field(default_factory=dict)
    published: Mapping[str, Published] = field(default_factory=dict)
    touched: Mapping[str, Mapping[date, Published]] = field(default_factory=dict)
    built: Mapping[str, Mapping[date, Published]] = field(default_factory=dict)

    def key(self, asked: Collection[str], made_of: MadeOf) -> str:
        """Return the key of an answer.

        Args:
            asked: The question: statement and values.
            made_of: What the answer would be made of.
        """
        found = hashlib.sha256()
        for one in (*asked, *made_of.marks, *made_of.version):
            text = one.encode("utf-8", "surrogatepass")
            found.update(b"%d:" % len(text))
            found.update(text)
        return found.hexdigest()[:40]

    def made_of(
        self, relations: Mapping[str, str], streams: Collection[str], first: date, last: date, today: date
    ) -> MadeOf:
        """Return what an answer about some days is made of.

        Args:
            relations: Tables and views that are read, by full name, each with its column of the day; empty for none.
            streams: Streams whose rows they hold; ``*`` for all.
            first: First day that is asked for.
            last: Last day.
            today: The present day, UTC, which views may look at.
        """
        known = sorted(self.published) if "*" in streams else sorted(streams)
        views = any(self.relations[name].view for name in relations if name in self.relations)
        days = {
            stream: {day: one for day, one in self.touched.get(stream, {}).items() if first <= day <= last}
            for stream in known
        }
        built = {
            stream: {day: one for day, one in self.built.get(stream, {}).items() if first <= day <= last}
            for stream in known
        }
        newest = {name: self.published[name] for name in known if name in self.published}
        own = {name: max(found.values()) for name, found in days.items() if found}
        marks = [*self._marks(relations, first, last, views), *([f"{today}"] if views else [])]
        return MadeOf(newest if views else own, days, built, tuple(marks), views, today)

    def _marks(self, names: Mapping[str, str], first: date, last: date, views: bool) -> Iterator[str]:
        # a view may read any table
        for name in sorted(self.relations) if views else sorted(names):
            found = self.relations.get(name)
            if found is None:
                yield f"{name} is missing"
                continue
            by_day = not views and bool(names[name]) and found.partition_key == names[name]
            for partition, mark in sorted(found.marks.items()):
                if not by_day or partition == WHOLE or _within(partition, first, last):
                    yield f"{name} {partition} {mark}"


@dataclass(frozen=True)
class MadeOf:
    """What an answer is made of.

    Attributes:
        published: The newest lake version in it, by stream.
        touched: The newest version of each day that was asked for, by stream.
        built: What the models of these days were built from, by stream.
        marks: Marks of all partitions that it reads.
        live: Whether what was published a moment ago counts.
        today: The day on which it was asked.
    """

    published: Mapping[str, Published]
    touched: Mapping[str, Mapping[date, Published]]
    built: Mapping[str, Mapping[date, Published]]
    marks: tuple[str, ...]
    live: bool
    today: date

    @property
    def version(self) -> tuple[str, ...]:
        """The logical version: what was published and built."""
        found = [f"{name} {one.epoch}.{one.version}" for name, one in sorted(self.published.items())]
        for name, days in sorted(self.built.items()):
            found += [f"{name} {day} {one.epoch}.{one.version} {one.at}" for day, one in sorted(days.items())]
        for name, days in sorted(self.touched.items()):
            found += [f"{name} {day} {one.epoch}.{one.version}" for day, one in sorted(days.items())]
        return tuple(found)

    @property
    def watermark(self) -> str | None:
        """When the newest publication in it was; None if nothing is known."""
        return max((one.at for one in self.published.values()), default=None)

    @property
    def stale(self) -> tuple[date, ...]:
        """Days with rows that were published after their models were built; none for live answers."""
        if self.live:
            return ()
        found = set()
        for name, days in self.touched.items():
            built = self.built.get(name, {})
            for day, one in days.items():
                if day not in built or (built[day].epoch, built[day].version) < (one.epoch, one.version):
                    found.add(day)
        return tuple(sorted(found))

    def as_dict(self) -> dict[str, Any]:
        """Return it for people and programs: versions by stream, builds by runs of days, days that lag behind."""
        return {
            "live": self.live,
            "published": {
                name: {"version": one.version, "epoch": one.epoch, "at": one.at}
                for name, one in sorted(self.published.items())
            },
            "builds": {name: _runs(days) for name, days in sorted(self.built.items()) if days},
            "stale_days": [f"{day}" for day in self.stale],
        }


def _runs(days: Mapping[date, Published]) -> list[dict[str, Any]]:
    """Return days in runs that were built together."""
    found: list[dict[str, Any]] = []
    before: tuple[date, Published] | None = None
    for day, one in sorted(days.items()):
        if before is not None and before[1] == one and day - before[0] == timedelta(days=1):
            found[-1]["to"] = f"{day}"
        else:
            found.append({"from": f"{day}", "to": f"{day}", "version": one.version, "at": one.at})
        before = day, one
    return found


def _within(partition: str, first: date, last: date) -> bool:
    """Tell whether a partition may hold rows of these days; one that is no day may."""
    if len(partition) != 8 or not partition.isdigit():
        return True
    return f"{first:%Y%m%d}" <= partition <= f"{last:%Y%m%d}"


def now() -> datetime:
    """Return the present, UTC."""
    return datetime.now(UTC)
