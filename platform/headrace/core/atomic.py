"""Replace small state files that several processes read and write."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def write_atomically(path: Path, content: bytes | str, mode: int = 0o666, *, synced: bool = False) -> None:
    """Replace a file's content; readers see either the old or the new content.

    Each call writes a temporary file of its own beside ``path``, so any number of processes and threads may
    write.

    Args:
        path: The file; its folder is created if it is missing.
        content: Text is written as UTF-8.
        mode: Permissions of the file, before the umask; ``0o600`` if only this user may read it.
        synced: Return once the new content survives a power cut. Without it the file may have its old content after
            one, or on some file systems be empty.

    Raises:
        OSError: The file cannot be written. It keeps its old content, and no temporary file is left.
    """
    data = content.encode() if isinstance(content, str) else content
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    make_folder(path.parent, synced=synced)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            if synced:
                file.flush()
                os.fsync(file.fileno())
        beside.replace(path)
        if synced:
            sync_folder(path.parent)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def make_folder(folder: Path, *, synced: bool = False) -> None:
    """Make a folder and those above it, where they are missing; ``synced``: so that they survive a power cut.

    Raises:
        OSError: It cannot be made.
    """
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if synced:
        for one in reversed(missing):
            sync_folder(one.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder survive a power cut.

    Raises:
        OSError: The disk fails.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
