"""Small files of state that several processes read and write."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, mode: int = 0o666) -> None:
    """Replace a file's content; readers see the old or the new one, whoever else writes meanwhile.

    Each call writes a temporary file of its own beside ``path``, so any number of processes and threads may write.
    The content is not synced: a power cut may bring the old one back, or an empty file on some file systems.

    Args:
        path: The file; its folder is made where it is missing.
        content: Text is written as UTF-8.
        mode: Permissions of the file, before the umask; ``0o600`` for what only this user may read.

    Raises:
        OSError: It cannot be written; the old content stays, and nothing is left beside it.
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
