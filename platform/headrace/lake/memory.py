"""The lake in memory: the same protocol with the same refusals, for tests and for learning."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

import polars as pl

from headrace.core.batch import ORIGIN_KEY, Chunk, Position, Table, sent_stamp
from headrace.core.errors import Conflict, Fatal, HistoryGone
from headrace.lake.arrow import arrow_schema, to_arrow
from headrace.lake.base import AGAIN, ERASED, Erased, Extent, LakeVersion, Staged
from headrace.lake.layout import Layout, layout_of, reading_of, stored


class MemoryLakeTable:
    """A list of commits.

    The next append raises ``fail_next_append``: before it takes effect, or after it if ``fail_after_commit`` is
    set.
    """

    def __init__(self, table: Table, beside: MemoryLakeTable | None = None) -> None:
        """Make an empty table.

        Args:
            table: Columns and partition of the table.
            beside: The same table in another process, whose contract may have another version.
        """
        self.table = table
        self.fail_next_append: Exception | None = None
        self.fail_after_commit = False
        self._layout: tuple[_Columns, Layout] | None = None
        if beside is not None:
            for shared in (
                "id",
                "commits",
                "_times",
                "_names",
                "_notes",
                "_erased",
                "marks",
                "_grown",
                "_lock",
            ):
                setattr(self, shared, getattr(beside, shared))
            return
        self.id = str(uuid.uuid4())
        self.commits: list[tuple[pl.DataFrame, Mapping[str, int]]] = [(pl.DataFrame(schema=table.schema), {})]
        self._times = [datetime.now(UTC)]  # one per commit
        self._names = [str(uuid.uuid4())]  # fingerprints, one per commit
        self._notes: dict[int, dict[str, str]] = {}  # by version
        self._erased: dict[int, pl.DataFrame] = {}  # origins taken away, by version
        self.marks: dict[int, str] = {}  # by version
        there = stored(arrow_schema(table))
        self._grown: dict[int, _Columns] = {0: _Columns(there, table.description_json, reading_of(table, ""))}
        self._lock = threading.Lock()

    def columns(self, version: int | None = None) -> _Columns:
        """Return the table's columns as of ``version``."""
        end = len(self.commits) if version is None else version + 1
        return self._grown[max(at for at in self._grown if at < end)]

    def layout(self, version: int | None = None) -> Layout:
        """Compare the contract's columns with the table's as of ``version``."""
        found = self.columns(version)
        if self._layout is None or self._layout[0] is not found:
            self._layout = found, layout_of(self.table, found.there, found.reading)
        return self._layout[1]

    def shape(self) -> Table:
        """Return the columns of the newest version as they are read."""
        return self.layout().view

    def grow(self, seen: int) -> int:
        """Commit the contract's columns, if nobody has changed the table after version ``seen``."""
        with self._lock:
            if any(version > seen for version in (*self.marks, *self._grown)):
                raise Conflict(f"another process changed {self.table.name} first")
            now, layout = self.columns(), self.layout()
            for name, (there, ours) in layout.refused.items():
                raise Fatal(
                    f"column {name!r} of {self.table.name} is {there}, which does not widen to {ours}"
                )
            wanted = stored(arrow_schema(layout.own))
            found = _Columns(
                {**now.there, **wanted},
                self.table.description_json or now.description,
                reading_of(self.table, now.reading),
            )
            if found != now:
                self._empty_commit({})
                self._grown[len(self.commits) - 1] = found
            return len(self.commits) - 1

    def _empty_commit(self, moved: Mapping[str, int]) -> None:
        self.commits.append((pl.DataFrame(schema=self.table.schema), moved))
        self._times.append(datetime.now(UTC))
        self._names.append(str(uuid.uuid4()))

    def open(self) -> MemorySnapshot:
        """Open the newest snapshot."""
        return MemorySnapshot(self, len(self.commits) - 1)

    def sync(self, version: int, /) -> None:
        """Do nothing: memory survives no power cut."""

    def stage(self) -> MemoryStaged:
        """Begin with no rows."""
        return MemoryStaged(self.table)

    def commit(
        self,
        seen: int,
        rows: pl.DataFrame,
        advance: Mapping[str, int],
        notes: Mapping[str, str] | None = None,
    ) -> int:
        """Append if nobody has moved the same cursors after version ``seen``."""
        with self._lock:
            fault, self.fail_next_append = self.fail_next_append, None
            if fault is not None and not self.fail_after_commit:
                raise fault
            fenced = any(version > seen for version in (*self.marks, *self._grown))
            layout = self.layout()
            if not fenced and (wrong := [*layout.lacking, *layout.refused]):
                raise Fatal(f"{self.table.name} has other columns than its contract: {', '.join(wrong)}")
            for _, moved in self.commits[seen + 1 :]:
                if fenced or set(moved) & set(advance):
                    raise Conflict(f"another writer committed to {self.table.name} first")
            self.commits.append(
                (rows.select(self.table.schema.names()).cast(layout.own.schema), dict(advance))
            )
            self._times.append(datetime.now(UTC))
            self._names.append(str(uuid.uuid4()))
            self._notes[len(self.commits) - 1] = dict(notes or {})
            if fault is not None:
                raise fault
            return len(self.commits) - 1

    def rows(self, version: int | None = None) -> pl.DataFrame:
        """Return all rows as of ``version``, with the columns of ``shape``."""
        end = len(self.commits) if version is None else version + 1
        layout = self.layout()
        found, start = pl.DataFrame(schema=layout.view.schema), 0
        for at in [*sorted(n for n in self._erased if n < end), end - 1]:
            found = pl.concat([found, *(_viewed(rows, layout) for rows, _ in self.commits[start : at + 1])])
            start = at + 1
            if at in self._erased:
                gone = self._erased[at].select(ORIGIN_KEY)
                found = found.join(gone, on=ORIGIN_KEY, how="anti", nulls_equal=True)
        return found

    def erase(self, origins: pl.DataFrame, /, tell: Callable[[Erased], object] = lambda done: None) -> Erased:
        """Delete the rows in one commit."""
        if "ends" not in origins.columns:
            ends = pl.struct("_cursor", "_offset", "_message_id").is_first_distinct()
            origins = origins.with_columns(ends=ends)
        with self._lock:
            columns = pl.col(*ORIGIN_KEY, self.table.partition)
            gone = self.rows().join(origins, on=ORIGIN_KEY, how="inner", nulls_equal=True)
            if not gone.height:
                return Erased()
            ended = gone.filter("ends").group_by("_cursor").len()
            before = MemorySnapshot(self, len(self.commits) - 1).position
            moved = {ERASED + c: before([ERASED + c]).get(ERASED + c, 0) + n for c, n in ended.iter_rows()}
            self._erased[len(self.commits)] = gone.select(columns)
            self._empty_commit(moved)
            version = len(self.commits) - 1
        done = Erased(gone.height, (version,))
        tell(done)
        return done

    def restore(self, version: int) -> None:
        """Go back to a version, as if an older copy of the lake replaced it."""
        with self._lock:
            for kept in (self.commits, self._times, self._names):
                del kept[version + 1 :]  # type: ignore[attr-defined]
            for by_version in (self._erased, self.marks, self._grown):
                for at in [at for at in by_version if at > version]:
                    del by_version[at]  # type: ignore[attr-defined]

    def forget(self, erased: Erased, /) -> int:
        """Remove nothing: there are no files."""
        return 0

    def fence(self, mark: str, /) -> None:
        """Commit the mark."""
        with self._lock:
            self._empty_commit({})
            self.marks[len(self.commits) - 1] = mark

    def exists(self) -> bool:
        """Answer yes: a table in memory always exists."""
        return True

    def describe(self, version: int, /) -> LakeVersion:
        """Describe what a version added."""
        if not 0 <= version < len(self.commits):
            raise HistoryGone(f"version {version} of {self.table.name} is no longer in the log")
        rows, _ = self.commits[version]
        if version in self._erased:
            days = tuple(self._erased[version][self.table.partition].unique().sort().to_list())
            return LakeVersion(version, 0, days, (), rewritten=True, fingerprint=self._names[version])
        days = tuple(rows[self.table.partition].unique().sort().to_list())
        files = (rows,) if rows.height else ()
        batches = tuple(rows["_batch_id"].unique().sort().to_list())
        return LakeVersion(version, rows.height, days, files, False, batches, self._names[version])

    def read(self, added: LakeVersion, /) -> Iterator[Chunk]:
        """Read the added rows as one chunk."""
        for rows in added.files:
            assert isinstance(rows, pl.DataFrame)
            layout = self.layout()
            yield Chunk.of(to_arrow(_viewed(rows, layout), layout.view))

    def read_day(self, day: date, version: int, /) -> Iterator[Chunk]:
        """Read the day's rows as one chunk."""
        rows = self.rows(version).filter(pl.col(self.table.partition) == day)
        if rows.height:
            yield Chunk.of(to_arrow(rows, self.shape()))

    def latest(self) -> datetime | None:
        """Return when the newest row was ingested."""
        newest = self.rows()["_ingested_at"].max()
        assert newest is None or isinstance(newest, datetime)
        return newest

    def counts_by_day(self, version: int | None = None, /) -> dict[date, int]:
        """Count rows by partition."""
        return dict(self.rows(version).group_by(self.table.partition).len().iter_rows())

    def extent(self) -> Extent:
        """Count all rows; there are no files."""
        return Extent(rows=self.rows().height)

    def notes(self, name: str, since: datetime, /) -> list[tuple[datetime, str]]:
        """Search the notes of all commits."""
        found = [
            (self._times[version], notes[name]) for version, notes in self._notes.items() if name in notes
        ]
        return [(at, text) for at, text in reversed(found) if at >= since]

    def committed_at(self, version: int, /) -> datetime:
        """Return when ``commit`` was called."""
        if not 0 <= version < len(self._times):
            raise HistoryGone(f"version {version} of {self.table.name} is no longer in the log")
        return self._times[version]


@dataclass(frozen=True)
class _Columns:
    """What a table records of its columns: their stored dtypes, the contract's description, how they are read."""

    there: Mapping[str, pl.DataType]
    description: str
    reading: str


def _viewed(rows: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """Give rows of any version the columns of a view."""
    if layout.simple and rows.schema == layout.view.schema:
        return rows
    absent = [pl.lit(None, dtype).alias(n) for n, dtype in layout.raw.schema.items() if n not in rows.columns]
    return rows.with_columns(absent).select(layout.select(layout.view.schema))


class MemoryStaged:
    """Rows on their way into a table. See ``headrace.lake.base.Staged``."""

    def __init__(self, table: Table) -> None:
        self.frame = pl.DataFrame(schema=table.schema)

    @property
    def height(self) -> int:
        """Number of rows so far."""
        return self.frame.height

    def add(self, rows: pl.DataFrame, /) -> None:
        """Keep the rows."""
        self.frame = pl.concat([self.frame, rows.select(self.frame.columns)])


class MemorySnapshot:
    """A version of the table. See ``headrace.lake.base.Snapshot``."""

    def __init__(self, owner: MemoryLakeTable, version: int) -> None:
        self._owner = owner
        self.version = version

    @property
    def mark(self) -> str:
        """Mark of the last fence in this snapshot."""
        return next((m for v, m in reversed(self._owner.marks.items()) if v <= self.version), "")

    @property
    def described(self) -> str:
        """Description of the contract that changed the table last."""
        return self._owner.columns(self.version).description

    @property
    def columns(self) -> pl.Schema:
        """Columns of the table, with their dtypes."""
        return self._owner.layout(self.version).kept.schema

    @property
    def view(self) -> Table:
        """Columns of the table as they are read."""
        return self._owner.layout(self.version).view

    @property
    def unknown(self) -> tuple[str, ...]:
        """Columns that the contract does not name."""
        layout = self._owner.layout(self.version)
        return tuple(name for name in layout.view.schema if name not in layout.own.schema)

    @property
    def behind(self) -> tuple[str, ...]:
        """Columns of the contract that the table lacks or has in a narrower type."""
        return self._owner.layout(self.version).lacking

    def grow(self) -> None:
        """Commit the contract's columns, or raise ``Conflict``."""
        self.version = self._owner.grow(self.version)

    def position(self, cursors: list[str], /) -> Position:
        """Return next offsets as of this snapshot."""
        moved: dict[str, int] = {}
        for _, advance in self._owner.commits[: self.version + 1]:
            moved.update(advance)
        return Position({c: moved[c] for c in cursors if c in moved})

    def below(self, prefix: str, /) -> Position:
        """Return the cursors that have rows."""
        known = self._owner.rows(self.version)["_cursor"].unique()
        return self.position([c for c in sorted(known) if c.startswith(prefix)])

    def origins(self, cursor: str, first: int, end: int, /) -> pl.DataFrame:
        """Return the rows of a range of offsets."""
        rows = self._owner.rows(self.version).filter(pl.col("_cursor") == cursor)
        return rows.filter(pl.col("_offset").is_between(first, end - 1)).select(ORIGIN_KEY)

    def origins_of(
        self, cursor: str, message_ids: pl.Series, sent: datetime | None, within: timedelta | None, /
    ) -> pl.DataFrame:
        """Return the rows of messages."""
        rows = self._owner.rows(self.version).filter(pl.col("_cursor") == cursor)
        if sent is not None:
            rows = rows.filter(pl.col("_batch_id") >= sent_stamp(sent))
        return rows.filter(pl.col("_message_id").is_in(message_ids.implode())).select(ORIGIN_KEY)

    def origins_sent(self, message_ids: pl.Series, /) -> pl.DataFrame:
        """Return the rows of messages."""
        rows = self._owner.rows(self.version)
        return rows.filter(pl.col("_message_id").is_in(message_ids.implode())).select(ORIGIN_KEY)

    def sent_again(self, cursor: str, /) -> int:
        """Return the count as of this snapshot."""
        return self.position([AGAIN + cursor]).get(AGAIN + cursor, 0)

    def erased(self, cursor: str, /) -> int:
        """Return the count as of this snapshot."""
        return self.position([ERASED + cursor]).get(ERASED + cursor, 0)

    def append(
        self,
        rows: pl.DataFrame | Staged,
        advance: Mapping[str, int],
        batch_id: str,
        notes: Mapping[str, str] | None = None,
        /,
    ) -> int:
        """Commit, or raise ``Conflict``."""
        assert isinstance(rows, pl.DataFrame | MemoryStaged)
        frame = rows if isinstance(rows, pl.DataFrame) else rows.frame
        self.version = self._owner.commit(self.version, frame, advance, notes)
        return self.version
