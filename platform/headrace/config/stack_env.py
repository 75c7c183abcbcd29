"""Read ``stack.env``, in which a running embedded stack publishes its addresses to other commands.

The supervisor replaces the file as a whole and removes it when it ends. A file that does not parse is damaged, and a
guess at its content could send data to somebody else's broker. So it is refused, with file and line.
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
    """``stack.env`` is not as a stack wrote it."""


@dataclass(frozen=True, slots=True)
class Line:
    """One variable of the file.

    Attributes:
        value: Value without quotes and escapes.
        number: Line number, counted from 1.
    """

    value: str
    number: int


def path_in(home: Path) -> Path:
    """Return the path of ``stack.env`` in the stack's folder."""
    return home / NAME


def damaged(path: Path, number: int, what: str) -> Damaged:
    """Make the error of a line, or of the whole file where ``number`` is 0."""
    where = f"{path}, line {number}" if number else str(path)
    return Damaged(f"{where}: {what}; {_HINT}")


def read(path: Path) -> dict[str, Line]:
    """Return the file's variables by name; empty where there is no file.

    Raises:
        Damaged: The file cannot be read, or a line is no assignment.
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
        # a binding includes the blank lines before it
        number += len(binding.original.string) - len(binding.original.string.lstrip("\n"))
        if binding.error or (binding.key is not None and binding.value is None):
            first = binding.original.string.strip().partition("\n")[0].partition("=")[0][:60]
            raise damaged(path, number, f"{first!r} is no assignment NAME=value")
        if binding.key is not None:
            found[binding.key] = Line(binding.value or "", number)
    return found


def variables(home: Path, known: Container[str]) -> dict[str, Line]:
    """Return the variables of the stack that runs in ``home``; empty if none runs.

    Args:
        home: The stack's folder.
        known: Names of all settings.

    Raises:
        Damaged: The file is not as a stack wrote it.
    """
    path = path_in(home)
    found = {} if is_stale(home) else read(path)
    for name, line in found.items():
        if name not in known:
            raise damaged(path, line.number, f"{name[:60]} is not a setting of Headrace")
    return found


def is_stale(home: Path) -> bool:
    """Tell whether the stack that wrote the file ended without removing it, as after ``kill -9`` of all its processes.

    Its lock is free then. Where there is no lock file, the state is unknown and the file counts as current.
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
