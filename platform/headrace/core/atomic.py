"""Replace small state files that several processes read and write."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Replace a file's content; readers see either the old or the new content.

    Each call writes a temporary file of its own beside ``path``, so any number of processes and threads may
    write. The content is not synced: after a power cut the file may have its old content, or on some file
    systems be empty.

    Args:
        path: The file; its folder is created if it is missing.
        content: Text is written as UTF-8.
        mode: Permissions of the file, before the umask; ``0o600`` if only this user may read it.

    Raises:
        OSError: The file cannot be written. It keeps its old content, and no temporary file is left.
    """
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
