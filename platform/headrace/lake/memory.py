"""The lake in memory: the same protocol with the same refusals, for tests and for learning."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, date, datetime, timedelta

import polars as pl

from headrace.core.batch import ORIGIN_KEY, Chunk, Position, Table, sent_stamp
from headrace.core.errors import Conflict, HistoryGone
from headrace.lake.arrow import to_arrow
from headrace.lake.base import ERASED, Erased, Extent, LakeVersion, Staged


class MemoryLakeTable:
    """A list of commits.

    The next append raises ``fail_next_append``: before it takes effect, or after it if ``fail_after_commit`` is
    set.
    """

    def __init__(self, table: Table) -> None:
        self.table = table
        self.id = str(uuid.uuid4())
        self.commits: list[tuple[pl.DataFrame, Mapping[str, int]]] = [(pl.DataFrame(schema=table.schema), {})]
        self.fail_next_append: Exception | None = None
        self.fail_after_commit = False
        self._times = [datetime.now(UTC)]  # one per commit
        self._names = [str(uuid.uuid4())]  # fingerprints, one per commit
        self._notes: dict[int, dict[str, str]] = {}  # by version
        self._erased: dict[int, pl.DataFrame] = {}  # origins taken away, by version
        self.marks: dict[int, str] = {}  # by version
        self._lock = threading.Lock()

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
            fenced = any(version > seen for version in self.marks)
            for _, moved in self.commits[seen + 1 :]:
                if fenced or set(moved) & set(advance):
                    raise Conflict(f"another writer committed to {self.table.name} first")
            self.commits.append(
                (rows.select(self.table.schema.names()).cast(self.table.schema), dict(advance))
            )
            self._times.append(datetime.now(UTC))
            self._names.append(str(uuid.uuid4()))
            self._notes[len(self.commits) - 1] = dict(notes or {})
            if fault is not None:
                raise fault
            return len(self.commits) - 1

    def rows(self, version: int | None = None) -> pl.DataFrame:
        """Return all rows as of ``version``."""
        end = len(self.commits) if version is None else version + 1
        found, start = pl.DataFrame(schema=self.table.schema), 0
        for at in [*sorted(n for n in self._erased if n < end), end - 1]:
            found = pl.concat([found, *(rows for rows, _ in self.commits[start : at + 1])])
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
            self.commits.append((pl.DataFrame(schema=self.table.schema), moved))
            self._times.append(datetime.now(UTC))
            self._names.append(str(uuid.uuid4()))
            version = len(self.commits) - 1
        done = Erased(gone.height, (version,))
        tell(done)
        return done

    def restore(self, version: int) -> None:
        """Go back to a version, as if an older copy of the lake replaced it."""
        with self._lock:
            for kept in (self.commits, self._times, self._names):
                del kept[version + 1 :]  # type: ignore[attr-defined]
            self._erased = {at: gone for at, gone in self._erased.items() if at <= version}
            self.marks = {at: mark for at, mark in self.marks.items() if at <= version}

    def forget(self, erased: Erased, /) -> int:
        """Remove nothing: there are no files."""
        return 0

    def fence(self, mark: str, /) -> None:
        """Commit the mark."""
        with self._lock:
            self.commits.append((pl.DataFrame(schema=self.table.schema), {}))
            self._times.append(datetime.now(UTC))
            self._names.append(str(uuid.uuid4()))
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
            yield Chunk.of(to_arrow(rows, self.table))

    def read_day(self, day: date, version: int, /) -> Iterator[Chunk]:
        """Read the day's rows as one chunk."""
        rows = self.rows(version).filter(pl.col(self.table.partition) == day)
        if rows.height:
            yield Chunk.of(to_arrow(rows, self.table))

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
