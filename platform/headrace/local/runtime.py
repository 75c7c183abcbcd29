"""The files by which other commands find a running stack, and the lock that says whether one runs.

``stack.lock`` is the truth: its flock is held by the supervisor and by every guard, so it is free exactly
when no process of a stack is left. ``stack.env`` (for settings) and ``stack.json`` (for ``status`` and
``down``) may be stale after a ``kill -9``; without the lock they mean nothing and whoever comes next removes
them.
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
from typing import Any

from dotenv import dotenv_values

from headrace.core.atomic import write_atomically
from headrace.errors import Fatal

_PLAIN = re.compile(r"[A-Za-z0-9_.:/@%+=,-]*")
_PAUSE = 0.05
_PRIVATE = 0o600  # only this user may read them


def env_file(home: Path) -> Path:
    return home / "stack.env"


def info_file(home: Path) -> Path:
    return home / "stack.json"


@contextlib.contextmanager
def writing(home: Path) -> Iterator[None]:
    """Translate what a full disk or a read-only folder raises.

    Raises:
        Fatal: Anything could not be written.
    """
    try:
        yield
    except OSError as error:
        raise Fatal(
            f"cannot write {error.filename or home}: {(error.strerror or str(error)).lower()}; make room or "
            "fix its permissions, or choose another folder with HEADRACE_HOME"
        ) from error


def try_lock(home: Path) -> int | None:
    """The lock's file descriptor, or None when a stack holds it. Closing the descriptor releases it.

    Raises:
        Fatal: ``home`` cannot be created or written.
    """
    with writing(home):
        home.mkdir(parents=True, exist_ok=True)
        fd = os.open(home / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
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
    """As ``try_lock``, for at most ``seconds``: the last guards of a stack may still be ending services."""
    deadline = time.monotonic() + seconds
    while (fd := try_lock(home)) is None and time.monotonic() < deadline:
        time.sleep(_PAUSE)
    return fd


def runs(home: Path) -> bool:
    """Whether any process of a stack is left; removes what a killed one left behind.

    A folder that does not exist is not created by asking.
    """
    if not (home / "stack.lock").exists():
        return False
    fd = try_lock(home)
    if fd is None:
        return True
    try:
        forget(home)
    finally:
        os.close(fd)
    return False


def forget(home: Path) -> None:
    """Remove the files. Only while holding the lock."""
    with contextlib.suppress(OSError):
        env_file(home).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        info_file(home).unlink(missing_ok=True)


def write_env(home: Path, variables: Mapping[str, str]) -> None:
    lines = [f"{name}={_quoted(value)}\n" for name, value in variables.items()]
    write_atomically(env_file(home), "".join(lines), _PRIVATE)


def read_env(home: Path) -> dict[str, str]:
    """Empty when there is none."""
    values = dotenv_values(env_file(home), interpolate=False)
    return {name: value for name, value in values.items() if value is not None}


def write_info(home: Path, info: Mapping[str, Any]) -> None:
    write_atomically(info_file(home), json.dumps(info, indent=1), _PRIVATE)


def read_info(home: Path) -> dict[str, Any] | None:
    try:
        info: dict[str, Any] = json.loads(info_file(home).read_text())
        return info
    except (OSError, ValueError):
        return None


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
