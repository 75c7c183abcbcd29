"""Make a secret once, and keep it in a file that only this user may read."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from headrace.core.errors import Fatal

_PRIVATE = 0o600


def kept_secret(path: Path) -> str:
    """Return the secret in a file; make it, 192 random bits, where there is no file yet.

    Whichever of several processes is first makes it; all return the same.

    Raises:
        Fatal: The file is empty, or cannot be read or made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _make(path)
        found = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Fatal(
            f"the secret in {path} cannot be read: {error}; fix its permissions or remove it"
        ) from error
    if not found:
        raise Fatal(f"{path} is empty, and should hold a secret; remove it, and another one is made")
    return found


def _make(path: Path) -> None:
    """Make the file with its content in one step: a link fails where the file is there."""
    if path.exists():
        raise FileExistsError(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(24) + "\n")
        os.link(beside, path)
    finally:
        beside.unlink(missing_ok=True)
