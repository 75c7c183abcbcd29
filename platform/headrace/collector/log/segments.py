"""The files of a log: numbered segments, and one small file that says whose they are.

A segment is named after the number of its first entry and has nothing but frames. Space is reserved when it is made, so
a full disk shows there and seldom in the middle of a write. The identity file is there twice, each with a checksum.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from crc32c import crc32c

from headrace.collector.log.frames import hole_at, whole_until
from headrace.core.atomic import write_atomically
from headrace.core.errors import Fatal

_NAME = re.compile(r"(\d{20})\.log")
_IDENTITY = ("log.json", "log.copy.json")
#: Folder with bytes that could not be read.
SET_ASIDE = "set_aside"
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Damage:
    """Entries that can no longer be read.

    Attributes:
        first: Number of the first of them.
        end: One past the number of the last; equal to ``first`` if it is not known that there were any.
        file: File that held them.
        kept: Where their bytes are now; None if there are none.
    """

    first: int
    end: int
    file: Path
    kept: Path | None = None

    def __str__(self) -> str:
        which = f"entries {self.first} to {self.end - 1}" if self.end > self.first else "bytes"
        where = f"what is left of them is in {self.kept}" if self.kept else "nothing is left of them"
        return f"{which} of {self.file} cannot be read; {where}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of a log.

    Attributes:
        log: Id of the log, in the lake's positions of what it sent.
        lanes: Into how many sequences each stream's entries are divided; fixed for ever.
        void: Ranges of numbers that no acknowledged entry has, as (first, end).
    """

    log: str
    lanes: int
    void: tuple[tuple[int, int], ...] = ()

    @classmethod
    def new(cls, lanes: int) -> Identity:
        """Make the identity of a new log."""
        return cls(secrets.token_hex(8), lanes)

    def without(self, first: int, end: int, oldest: int) -> Identity:
        """Return it with one more void range, and without those below ``oldest``."""
        ranges = [one for one in self.void if one[1] > oldest]
        return replace(self, void=(*ranges, (first, end)))


class Disk:
    """What a log asks of its disk. Tests give it one that fails."""

    def write(self, descriptor: int, data: bytes, at: int) -> None:
        """Write all bytes at a place."""
        view = memoryview(data)
        while view:
            written = os.pwrite(descriptor, view, at)
            view, at = view[written:], at + written

    def sync(self, descriptor: int) -> None:
        """Wait until what was written survives a power cut."""
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS' fsync leaves it in the disk's cache
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        else:
            os.fdatasync(descriptor)

    def reserve(self, descriptor: int, size: int) -> None:
        """Reserve space for a file, filled with zeros, where the file system can."""
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, size)

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut a file off."""
        os.ftruncate(descriptor, size)


def segment_path(folder: Path, first: int) -> Path:
    """Return the path of the segment whose first entry has this number."""
    return folder / f"{first:020d}.log"


def segments_in(folder: Path) -> list[tuple[int, Path]]:
    """List the segments of a folder with the numbers of their first entries, in order."""
    found = [(int(m[1]), path) for path in folder.iterdir() if (m := _NAME.fullmatch(path.name))]
    return sorted(found)


@dataclass(frozen=True, slots=True)
class Found:
    """What is in a segment.

    Attributes:
        end: Place behind its last entry.
        next: Number after its last entry.
        torn: bytes behind ``end`` that are no entry, without the zeros at their end.
    """

    end: int
    next: int
    torn: bytes


def examine(path: Path, first: int) -> Found:
    """Read a segment to its end.

    Raises:
        OSError: The disk fails.
    """
    data = path.read_bytes()
    end, number = 0, first
    while True:
        end, number = whole_until(data, end, number)
        hole = hole_at(data, end)
        if not hole.followed:
            rest = data[end:]
            return Found(end, number, rest.rstrip(b"\0") if np.frombuffer(rest, np.uint8).any() else b"")
        end = hole.end


def set_aside(folder: Path, name: str, data: bytes) -> Path:
    """Keep bytes that could not be read in a file of their own, once.

    Raises:
        OSError: The disk is full or fails.
    """
    kept = folder / SET_ASIDE / name
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        write_atomically(kept, data, 0o600, synced=True)
    return kept


def identity_in(folder: Path) -> Identity | None:
    """Return the identity of the log in a folder; None for a new one.

    Raises:
        Fatal: It cannot be read, or a newer Headrace wrote it.
    """
    faults = []
    for name in _IDENTITY:
        try:
            text = (folder / name).read_text()
            said = json.loads(text)
            checksum = said.pop("checksum")
            if checksum != crc32c(_plain(said)):  # of all but itself
                raise ValueError("its checksum does not fit")
            if said.pop("format") != _FORMAT:
                raise Fatal(f"{folder / name} was written by a newer Headrace; use that one")
            return Identity(str(said["log"]), int(said["lanes"]), tuple((a, b) for a, b in said["void"]))
        except FileNotFoundError:
            continue
        except (OSError, ValueError, KeyError, TypeError) as error:
            faults.append(f"{folder / name} cannot be read: {error}")
    if faults or segments_in(folder):
        said_of = "; ".join(faults) or f"{folder / _IDENTITY[0]} is missing"
        raise Fatal(
            f"{said_of}. Without it nobody knows which entries the lake holds: restore it from a backup, or move"
            f" {folder} away, whose undelivered entries are then not sent"
        )
    return None


def write_identity(folder: Path, identity: Identity) -> None:
    """Write the identity of a log, so that it survives a power cut at any moment.

    Raises:
        OSError: The disk is full or fails.
    """
    said = {**asdict(identity), "format": _FORMAT}
    text = json.dumps({**said, "checksum": crc32c(_plain(said))})
    for name in _IDENTITY:
        write_atomically(folder / name, text, synced=True)


def _plain(said: dict[str, object]) -> bytes:
    return json.dumps(said, sort_keys=True).encode()


def within(number: int, ranges: Iterable[tuple[int, int]]) -> bool:
    """Tell whether a number is in one of the ranges."""
    return any(first <= number < end for first, end in ranges)
