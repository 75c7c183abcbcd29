"""``stack.env``: how a running embedded stack tells other commands where it is.

The supervisor writes the file whole and removes it at the end. So one that does not parse was damaged, and guessing
what it said would send data to somebody else's broker: it is refused, by file and line.
"""

from __future__ import annotations

import fcntl
import io
import os
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path

from dotenv.parser import parse_stream

from headrace.core.errors import Fatal

NAME = "stack.env"
LOCK = "stack.lock"
_LONGEST = 65_536
_HINT = (
    "a running stack writes it anew within seconds; where none runs, remove it or run 'headrace stack up'; "
    "'headrace stack status' says whether one runs"
)


class Damaged(Fatal):
    """The file is not what a stack wrote."""


@dataclass(frozen=True, slots=True)
class Line:
    """One variable.

    Attributes:
        value: As it is to be used.
        number: Of its line, from 1.
    """

    value: str
    number: int


def path_in(home: Path) -> Path:
    """Where the file of a stack in ``home`` is."""
    return home / NAME


def damaged(path: Path, number: int, what: str) -> Damaged:
    """The error of a line, or of the whole file for line 0."""
    where = f"{path}, line {number}" if number else str(path)
    return Damaged(f"{where}: {what}; {_HINT}")


def read(path: Path) -> dict[str, Line]:
    """Variables by name, none where there is no file.

    Raises:
        Damaged: It cannot be read, or a line of it is no assignment.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LONGEST + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise damaged(path, 0, f"it cannot be read: {(error.strerror or str(error)).lower()}") from error
    if len(content) > _LONGEST:
        raise damaged(path, 0, f"it is longer than {_LONGEST:,} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        number = content.count(b"\n", 0, error.start) + 1
        raise damaged(path, number, f"byte 0x{content[error.start]:02x} is no UTF-8") from error
    if "\0" in text:
        raise damaged(path, text.count("\n", 0, text.index("\0")) + 1, "it holds a zero byte")
    if not text.endswith("\n"):
        raise damaged(path, text.count("\n") + 1, "it breaks off" if text else "it is empty")
    found = {}
    for binding in parse_stream(io.StringIO(text)):
        number = binding.original.line
        # blank lines belong to what follows them
        number += len(binding.original.string) - len(binding.original.string.lstrip("\n"))
        if binding.error or (binding.key is not None and binding.value is None):
            first = binding.original.string.strip().partition("\n")[0].partition("=")[0][:60]
            raise damaged(path, number, f"{first!r} is no assignment NAME=value")
        if binding.key is not None:
            found[binding.key] = Line(binding.value or "", number)
    return found


def variables(home: Path, known: Container[str]) -> dict[str, Line]:
    """Variables of the stack that runs in ``home``; none if none does.

    Args:
        home: The stack's folder.
        known: Names that can be set.

    Raises:
        Damaged: The file is not what a stack wrote.
    """
    path = path_in(home)
    found = {} if is_stale(home) else read(path)
    for name, line in found.items():
        if name not in known:
            raise damaged(path, line.number, f"{name[:60]} is not a setting of Headrace")
    return found


def is_stale(home: Path) -> bool:
    """Whether the stack that wrote the file has ended without removing it, as after a ``kill -9`` of all of it.

    Its lock is free then. Without a lock nobody can tell, and the file counts.
    """
    try:
        descriptor = os.open(home / LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    else:
        return True
    finally:
        os.close(descriptor)
