"""Read the files of an archive: history, and anything else that comes as files.

Delivery: a file is known by its content. Its cursor is ``files/<folder>/<sha256 of its bytes>``, an offset is
the number of a record in it, from 0. The position lives in the Delta log like any other. So a record is read
again exactly when it has not landed, a content lands once under however many names, and records = landed +
rejected. Files are never moved, changed or deleted. Unit of parallelism: the source; one run reads file after
file.

A file is examined before any of its records land: it is hashed, read to its end in its format, and counted. A
file that cannot be read is refused whole, with a line that says why, and the others go on. A file that was
written to within the last ``quiet_seconds`` waits. If a file changes while it is read, this is noticed after
each chunk: the chunk is thrown away and the file is examined again. Its new content is another cursor, whose
records all land. So a file that grows after it was taken brings its old records again; the marts count them
once by their ids.

A line that is no record is a message too: its untouched bytes, which the contract rejects with its reasons. (A
line of a CSV or a log that happens to be a JSON record is a message like any other.)
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path

import polars as pl

from headrace.core.batch import HEADERS, RECORD_SCHEMA, UTC_MICROS, Backlog, MicroBatch, Position
from headrace.core.errors import BadData
from headrace.formats import FileReader, Record
from headrace.sources.files.archive import Archive, Found
from headrace.sources.files.index import Entry, FileIndex

log = logging.getLogger(__name__)

#: Bytes of payload after which a batch ends, and seconds after which it ends while small files keep coming.
_BATCH_BYTES = 256 << 20
_READ_SECONDS = 5.0
_LOOK_SECONDS = 2.0  # a read that waits for files returns after this, so that they are listed again
_HASH_BYTES = 1 << 20
_ORIGIN = {"timestamp": pl.Int64, "cursor": pl.String, "offset": pl.Int64, "end": pl.Int64}


@dataclass(frozen=True, slots=True)
class _File:
    """A content that can be read, at the first of its paths."""

    cursor: str
    path: str
    entry: Entry


@dataclass(slots=True)
class _View:
    """The folder at one moment.

    Attributes:
        files: Contents by cursor, in order of path.
        gone: Contents that were examined and exist at no path any more.
        unknown: Files that were not examined yet and that nobody is writing to.
        problems: Why files are refused.
        paths: Paths of all files.
    """

    files: dict[str, _File] = field(default_factory=dict)
    gone: dict[str, _File] = field(default_factory=dict)
    unknown: list[Found] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    paths: frozenset[str] = frozenset()

    def pending(self, after: Position) -> list[_File]:
        """Return the files with records beyond ``after``."""
        return [f for f in self.files.values() if after.get(f.cursor, 0) < f.entry.records]

    def torn(self, after: Position) -> list[_File]:
        """Return the files that disappeared after some of their records had landed, but not all."""
        return [f for f in self.gone.values() if 0 < after.get(f.cursor, 0) < f.entry.records]


@dataclass(slots=True)
class _Part:
    """Consecutive records of one file."""

    file: _File
    start: int
    payloads: list[bytes] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    size: int = 0

    @property
    def end(self) -> int:
        return self.start + len(self.payloads)


class FilesSource:
    """One folder of the archive. Touches nothing before its first use; for one thread.

    Args:
        folder: Folder below the archive.
        archive: Where the files are.
        reader: How they are read.
        index: File that remembers which files were examined.
        quiet_seconds: How long nobody must have written to a file before it is examined.
    """

    replayable = True

    def __init__(
        self, folder: str, archive: Archive, reader: FileReader, index: Path, *, quiet_seconds: float = 2.0
    ) -> None:
        self.name = f"files/{folder}"
        self._folder = folder
        self._archive = archive
        self._reader = reader
        self._index = FileIndex(index, reader.version)
        self._quiet = timedelta(seconds=quiet_seconds)
        self._view: _View | None = None
        self._open: _Opened | None = None

    def cursors(self) -> list[str]:
        """List one cursor per examined content; ``read`` examines new files, and then they appear."""
        self._view = self._look()
        return [*self._view.files, *self._view.gone]

    def read(self, after: Position, max_messages: int, wait_seconds: float, /) -> MicroBatch:
        """Read the next records, of one or more files in order of path.

        Right after ``cursors`` it reads only the files listed there, so that ``after`` tells how far each has
        landed. If none of their records are left, it examines new files for about ``wait_seconds``, at least
        one of them, and may return an empty batch.
        """
        asked, view = self._view is not None, self._latest()
        pending, refused = view.pending(after), []
        if not pending and view.unknown:
            refused = self._examine_new(view, after, wait_seconds)
            told = {*view.files, *view.gone}
            pending = [f for f in self._look().pending(after) if f.cursor in told or not asked]
        elif not pending:
            time.sleep(min(wait_seconds, _LOOK_SECONDS))  # nothing announces new files
        return self._batch(self._take(pending, after, max_messages), tuple(refused))

    def _latest(self) -> _View:
        """Return the view that ``cursors`` has just made, or a new one."""
        view, self._view = self._view or self._look(), None
        return view

    def _look(self) -> _View:
        """List the folder and compare it with the index; opens no file."""
        self._index.refresh()
        view, quiet_since = _View(), time.time_ns() - self._quiet // timedelta(microseconds=1) * 1_000
        listed = self._archive.files(self._folder)
        for found in listed:
            entry = self._index.files.get(found.path)
            if entry is None or not entry.is_of(found):
                # a time in the future comes from another clock, not from a write that goes on
                if not quiet_since < found.mtime_ns <= time.time_ns():
                    view.unknown.append(found)
            elif entry.problem:
                view.problems.append(entry.problem)
            else:
                file = self._file(found.path, entry)
                view.files.setdefault(file.cursor, file)
        view.paths = frozenset(found.path for found in listed)
        for path, entry in self._index.files.items():
            file = self._file(path, entry)
            if path not in view.paths and not entry.problem and file.cursor not in view.files:
                view.gone.setdefault(file.cursor, file)
        return view

    def _file(self, path: str, entry: Entry) -> _File:
        return _File(f"{self.name}/{entry.sha256}", path, entry)

    def _examine_new(self, view: _View, after: Position, seconds: float) -> list[str]:
        """Examine new files until one has news and the time is over; return why files are refused."""
        deadline, refused = time.monotonic() + seconds, []
        contents, news = self._index.contents(), False
        torn = {file.path for file in view.torn(after)}
        self._index.prune(lambda path: path in view.paths or path in torn)
        try:
            for found in view.unknown:
                entry = self._examined(found, contents)
                if entry is None:
                    continue
                before, self._index.files[found.path] = self._index.files.get(found.path), entry
                if entry.problem:
                    refused.append(entry.problem)
                elif before and before.sha256 != entry.sha256:
                    log.warning(
                        "%s has changed: its content is read as a new file", self._archive.name(found.path)
                    )
                news = news or bool(entry.problem) or entry.sha256 not in contents
                contents.setdefault(entry.sha256, entry.records)
                if news and time.monotonic() >= deadline:
                    break
        finally:
            self._index.save()
        return refused

    def _examined(self, found: Found, contents: dict[str, int]) -> Entry | None:
        """Read a file to its end; None if it changed meanwhile."""
        path, name = found.path, self._archive.name(found.path)
        try:
            stamp = self._archive.stamp(path)
        except BadData:
            return None
        sha256, problem, records = "", "", 0
        try:
            sha256 = self._hashed(path)
            counted = contents.get(sha256)
            records = sum(1 for _ in self._records(path)) if counted is None else counted
        except BadData as error:
            problem = f"{error} (nothing of this file has landed: repair it or take it away)"
        try:
            if self._archive.stamp(path) != stamp:
                return None
        except BadData:
            return None
        log.info("examined %s: %s", name, problem or f"{records:,} records")
        return Entry(found.size, found.mtime_ns, stamp, sha256, records, problem)

    def _hashed(self, path: str) -> str:
        digest = hashlib.sha256()
        with self._archive.open(path) as file:
            while block := file.read(_HASH_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def _records(self, path: str) -> Generator[Record, None, None]:
        return self._reader.records(lambda: self._archive.open(path), self._archive.name(path))

    def _take(self, pending: list[_File], after: Position, max_messages: int) -> list[_Part]:
        deadline, parts = time.monotonic() + _READ_SECONDS, []
        messages, size = max_messages, _BATCH_BYTES
        for file in pending:
            part = self._part(file, after.get(file.cursor, 0), messages, size)
            if part is None:
                continue
            parts.append(part)
            messages, size = messages - len(part.payloads), size - part.size
            if messages <= 0 or size <= 0 or time.monotonic() >= deadline:
                break
        return parts

    def _part(self, file: _File, start: int, messages: int, size: int) -> _Part | None:
        """Read the next records of a file; None if it has changed since it was examined."""
        part = _Part(file, start)
        whole = min(messages, file.entry.records - start)
        try:
            opened = self._opened(file, start)
            for payload, key, _ in islice(opened.records, whole):
                part.payloads.append(payload)
                part.keys.append(key)
                part.size += len(payload)
                if part.size >= size:
                    break
            opened.at = part.end
            done = part.end == file.entry.records
            same = (
                (len(part.payloads) == whole or part.size >= size)
                and (not done or next(opened.records, None) is None)
                and self._archive.stamp(file.path) == file.entry.stamp
            )
        except BadData:
            same = done = False
        except BaseException:
            self.close()  # its records were taken and not delivered
            raise
        if done or not same:
            self.close()
        if same:
            return part
        log.warning("%s changed while it was read: it is examined again", self._archive.name(file.path))
        self._index.prune(lambda path: path != file.path)
        self._index.save()
        return None

    def _opened(self, file: _File, start: int) -> _Opened:
        """Return the records of a file from ``start``: the open ones if they fit, else from its beginning."""
        if self._open is None or (self._open.cursor, self._open.at) != (file.cursor, start):
            self.close()
            self._open = _Opened(file.cursor, start, self._records(file.path))
            next(islice(self._open.records, start, start), None)  # skips
        return self._open

    def _batch(self, parts: list[_Part], refused: tuple[str, ...]) -> MicroBatch:
        rows = [(p.file.entry.mtime_ns // 1_000, p.file.cursor, p.start, p.end) for p in parts]
        origins = pl.DataFrame(rows, _ORIGIN, orient="row").with_columns(
            pl.int_ranges("offset", "end"),
            pl.col("timestamp").cast(UTC_MICROS),
            pl.lit(None, HEADERS).alias("headers"),
            pl.lit(None, pl.String).alias("message_id"),
            pl.lit(value=False).alias("redelivered"),
        )
        records = origins.explode("offset").with_columns(
            pl.Series("payload", [p for part in parts for p in part.payloads], pl.Binary),
            pl.Series("key", [k for part in parts for k in part.keys], pl.Binary),
        )
        records = records.select(RECORD_SCHEMA.names())
        before = Position({part.file.cursor: part.start for part in parts})
        moved = {part.file.cursor: part.end for part in parts}
        return MicroBatch(self.name, records, before, before.advanced(moved), refused=refused)

    def acknowledge(self, batch: MicroBatch, /) -> None:
        """Do nothing: the position is in the lake's log, and the files stay as they are."""

    def backlog(self, after: Position, /) -> Backlog:
        """Count the records beyond ``after``; a file not yet examined counts as one. Opens no file."""
        view = self._latest()
        waiting = {f.cursor: f.entry.records - after.get(f.cursor, 0) for f in view.pending(after)}
        problems = view.problems + [
            f"{self._archive.name(f.path)} went away when {after[f.cursor]:,} of its {f.entry.records:,} records had"
            " landed: put it back, and the rest lands"
            for f in view.torn(after)
        ]
        total = sum(waiting.values()) + len(view.unknown)
        return Backlog(total, by_cursor=waiting, problems=tuple(problems))

    def close(self) -> None:
        """Close the open file; records that have not landed are read again."""
        if self._open is not None:
            self._open.records.close()
            self._open = None


@dataclass(slots=True)
class _Opened:
    """A file that is being read; ``at`` is the number of the next record."""

    cursor: str
    at: int
    records: Generator[Record, None, None]
