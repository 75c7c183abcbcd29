"""What the reading process tells the page: plain values that cross between the two."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime

#: How a row is compared with a value, with what people read.
OPERATORS = {
    "eq": "is",
    "ne": "is not",
    "contains": "contains",
    "gt": "greater than",
    "ge": "at least",
    "lt": "less than",
    "le": "at most",
    "null": "is missing",
    "present": "is there",
}


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition on the rows of a lake table.

    Attributes:
        column: Name of a column.
        operator: One of ``OPERATORS``.
        value: As it was written.
    """

    column: str
    operator: str
    value: str = ""

    @property
    def text(self) -> str:
        """It, as an address says it: ``column:operator:value``."""
        return f"{self.column}:{self.operator}:{self.value}".removesuffix(":")

    @property
    def said(self) -> str:
        """It, for people."""
        return f"{self.column} {OPERATORS[self.operator]} {self.value}".rstrip()


@dataclass(frozen=True, slots=True)
class Which:
    """Which rows of a lake table.

    Attributes:
        table: Name of the table.
        conditions: All of them hold.
        version: As this version has them; None for the newest.
        moment: As they were known then; None for now.
        day: Only of this partition.
    """

    table: str
    conditions: tuple[Condition, ...] = ()
    version: int | None = None
    moment: datetime | None = None
    day: date | None = None


@dataclass(frozen=True, slots=True)
class TableSeen:
    """A lake table at a glance.

    Attributes:
        name: Its name.
        stream: Its stream.
        rejected: Whether it holds rejected rows.
        exists: Whether anything has landed.
        rows: Rows of the newest version.
        bytes: Bytes of their files.
        files: Number of files.
        version: The newest version.
        latest: When its newest row was ingested.
        days: Number of its partitions.
        wrong: Why it cannot be read; empty if it can.
    """

    name: str
    stream: str
    rejected: bool
    exists: bool = False
    rows: int = 0
    bytes: int = 0
    files: int = 0
    version: int = 0
    latest: datetime | None = None
    days: int = 0
    wrong: str = ""


@dataclass(frozen=True, slots=True)
class VersionSeen:
    """A version that can be read: as of ``headrace.lake.delta.versions.Version``."""

    version: int
    at: datetime | None
    rows: int
    daily: date | None
    changed: str


@dataclass(frozen=True, slots=True)
class VersionsSeen:
    """The newest versions and all that are kept; all from ``first`` on can be read."""

    listed: tuple[VersionSeen, ...]
    first: int
    newest: int


@dataclass(frozen=True, slots=True)
class FileSeen:
    """A file of a version."""

    path: str
    day: date
    rows: int
    bytes: int
    newest: datetime | None


@dataclass(frozen=True, slots=True)
class FilesSeen:
    """Files of the newest version: how many, by day, and the newest ones."""

    count: int
    bytes: int
    by_day: tuple[tuple[date, int, int, int], ...]
    listed: tuple[FileSeen, ...]


@dataclass(frozen=True, slots=True)
class ColumnSeen:
    """A column of a lake table.

    Attributes:
        name: Its name.
        type: Its type.
        comment: What the contract says of it.
        nullable: Whether it may be missing.
        own: Whether Headrace adds it.
    """

    name: str
    type: str
    comment: str
    nullable: bool
    own: bool


@dataclass(frozen=True, slots=True)
class RowsSeen:
    """Rows as texts, the newest first; None is a missing value.

    Attributes:
        columns: Names.
        rows: Values by column.
        looked_at: Rows that were read for them.
        matching: Rows of those that were asked for.
        files: Files that were read.
        of_files: Files that may hold such rows.
        enough: Whether they are the newest for sure; False where time ran out.
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]
    looked_at: int = 0
    matching: int = 0
    files: int = 0
    of_files: int = 0
    enough: bool = True


@dataclass(frozen=True, slots=True)
class DifferenceSeen:
    """What changed from one version to another: as of ``headrace.lake.delta.browse.Difference``."""

    before: int
    after: int
    files_added: int
    files_removed: int
    days: tuple[tuple[date, int, int], ...]
    columns: tuple[tuple[str, str | None, str | None], ...]
    rows_added: int | None
    rows_removed: int | None
    added: RowsSeen
    removed: RowsSeen


@dataclass(frozen=True, slots=True)
class EventSeen:
    """One of the newest events.

    Attributes:
        at: When it was ingested.
        stream: Its stream.
        source: Where it came from.
        label: What it is, in a few words.
        detail: Some of its values.
        payload: Its row, or the payload that was rejected, as text.
        reasons: Why it was rejected: check, column, value; none for a good one.
    """

    at: datetime
    stream: str
    source: str
    label: str
    detail: str
    payload: str
    reasons: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class StreamSeen:
    """The health of a stream: as of ``headrace.health.status.StreamStatus``."""

    name: str
    waiting: Mapping[str, int | str]
    landed_at: datetime | None
    rows: int | None
    rejected: int | None
    unpublished: int | None
    stale_days: int | None
    stale_since: datetime | None
    problems: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CheckSeen:
    """The last evaluation of a check."""

    asset: str
    name: str
    passed: bool
    severity: str
    said: str
    at: datetime


@dataclass(frozen=True, slots=True)
class HealthSeen:
    """The health of the installation; ``checks`` is None where Dagster has not run."""

    streams: tuple[StreamSeen, ...]
    checks: tuple[CheckSeen, ...] | None
    problems: tuple[str, ...]
