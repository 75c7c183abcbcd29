"""Read and write the files by which other commands find a running stack, and the lock that tells whether one runs.

The lock decides. The supervisor and every guard hold the flock on ``stack.lock``, so it is free exactly when no
process of a stack is left. ``stack.env`` (for settings) and ``stack.json`` (for ``status`` and ``down``) may be stale
after a ``kill -9``. Without the lock they mean nothing, and the next command removes them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypedDict

import msgspec

from headrace.config import stack_env
from headrace.core.atomic import write_atomically
from headrace.core.errors import Fatal

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+=,-]*")
_PAUSE = 0.05
_LOOKED_AT_SECONDS = 0.05  # readers of stack.env hold the lock for microseconds, to check whether it is free
_PRIVATE = 0o600  # only this user may read them


def env_file(home: Path) -> Path:
    """Return the path of ``stack.env``."""
    return stack_env.path_in(home)


def info_file(home: Path) -> Path:
    """Return the path of ``stack.json``."""
    return home / "stack.json"


class _Process(TypedDict):
    pid: int
    created: float | None


class _Info(TypedDict):
    supervisor: _Process
    handles_sigterm: bool
    services: list[dict[str, Any]]


@contextlib.contextmanager
def writing(home: Path) -> Iterator[None]:
    """Translate the errors of a full disk or a read-only folder.

    Raises:
        Fatal: A file could not be written.
    """
    try:
        yield
    except OSError as error:
        raise Fatal(
            f"cannot write {error.filename or home}: {(error.strerror or str(error)).lower()}; make room or "
            "fix its permissions, or choose another folder with HEADRACE_HOME"
        ) from error


def try_lock(home: Path) -> int | None:
    """Return the lock's file descriptor, or None when a stack holds it. Closing the descriptor releases the lock.

    Raises:
        Fatal: ``home`` cannot be created or written.
    """
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        fd = os.open(home / stack_env.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        except OSError:
            os.close(fd)
            raise
        return fd


def wait_for_lock(home: Path, seconds: float) -> int | None:
    """Call ``try_lock`` for at most ``seconds``. The last guards of a stack may still be ending services."""
    deadline = time.monotonic() + seconds
    while (fd := try_lock(home)) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return fd


def is_running(home: Path) -> bool:
    """Tell whether any process of a stack is left; remove the files of a killed one.

    Asking does not create the folder.
    """
    if not (home / stack_env.LOCK).exists():
        return False
    fd = wait_for_lock(home, _LOOKED_AT_SECONDS)
    if fd is None:
        return True
    try:
        remove(home)
    finally:
        os.close(fd)
    return False


def remove(home: Path) -> None:
    """Remove the files. Call it only with the lock held."""
    with contextlib.suppress(OSError):
        env_file(home).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        info_file(home).unlink(missing_ok=True)


def write_env(home: Path, variables: Mapping[str, str]) -> None:
    """Write ``stack.env``."""
    lines = [f"{name}={_quoted(value)}\n" for name, value in variables.items()]
    write_atomically(env_file(home), "".join(lines), _PRIVATE)


def read_env(home: Path) -> dict[str, str]:
    """Return the variables of ``stack.env``; empty if it does not exist.

    Raises:
        Damaged: The file is not as a stack wrote it.
    """
    return {name: line.value for name, line in stack_env.read(env_file(home)).items()}


def write_info(home: Path, info: Mapping[str, Any]) -> None:
    """Write ``stack.json``."""
    write_atomically(info_file(home), json.dumps(info, indent=1), _PRIVATE)


def read_info(home: Path) -> dict[str, Any] | None:
    """Return the content of ``stack.json``; None if it does not exist or is damaged."""
    try:
        info = msgspec.json.decode(info_file(home).read_bytes(), type=_Info)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return dict(info)


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
