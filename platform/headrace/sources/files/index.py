"""Remember what is known of an archive's files, so that a file is examined once.

It is only a memory: the lake's log says what has landed. If the index is lost or damaged, the files are
examined again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import msgspec

from headrace.core.atomic import write_atomically
from headrace.sources.files.archive import Found

log = logging.getLogger(__name__)


class Entry(msgspec.Struct, frozen=True):
    """One file as it was when it was examined.

    Attributes:
        size: Bytes, as the listing showed it.
        mtime_ns: Time of its last write, as the listing showed it.
        stamp: See ``Archive.stamp``.
        sha256: Hash of its bytes, in hexadecimal.
        records: Number of its records.
        problem: Why it cannot be read; empty if it can.
    """

    size: int
    mtime_ns: int
    stamp: str
    sha256: str = ""
    records: int = 0
    problem: str = ""

    def is_of(self, found: Found) -> bool:
        """Tell whether the listing shows the same file."""
        return (self.size, self.mtime_ns) == (found.size, found.mtime_ns)


class _Saved(msgspec.Struct):
    reader: str
    files: dict[str, Entry]


class FileIndex:
    """Entries by path, in a small file that several processes may share: the last one to save wins.

    Args:
        path: The file; created by the first ``save``.
        reader: What the entries depend on besides the files; an index of another reader is ignored.
    """

    def __init__(self, path: Path, reader: str) -> None:
        self._path = path
        self._reader = reader
        self._seen: tuple[int, int, int] | None = None
        self._told = False  # whether it was logged that the file cannot be written
        self.files: dict[str, Entry] = {}

    def refresh(self) -> None:
        """Load what another process has saved since."""
        seen = self._now()
        if seen is None or seen == self._seen:
            return
        self._seen = seen
        try:
            saved = msgspec.json.decode(self._path.read_bytes(), type=_Saved)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return
        self.files = saved.files if saved.reader == self._reader else {}

    def contents(self) -> dict[str, int]:
        """Return the number of records by content, for contents that can be read."""
        return {e.sha256: e.records for e in self.files.values() if not e.problem}

    def prune(self, keep: Callable[[str], bool]) -> None:
        """Forget the files whose paths are not to be kept."""
        self.files = {path: entry for path, entry in self.files.items() if keep(path)}

    def save(self) -> None:
        """Save the entries for other processes; if that fails, files are examined again.

        Readers see the old or the new content.
        """
        try:
            write_atomically(self._path, msgspec.json.encode(_Saved(self._reader, self.files)))
        except OSError as error:
            why = (error.strerror or str(error)).lower()
            level = logging.DEBUG if self._told else logging.WARNING
            log.log(level, "%s cannot be written, so files are examined again: %s", self._path, why)
            self._told = True
            return
        self._told = False
        self._seen = self._now()

    def _now(self) -> tuple[int, int, int] | None:
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns
