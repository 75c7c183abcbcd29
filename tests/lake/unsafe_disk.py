"""A disk that keeps nothing but what was synced: the worst that a power cut may leave of a folder."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest


class UnsafeDisk:
    """Watches ``os.fsync``. Of a file it keeps the bytes, of a folder the entries, as they were at its last sync."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Args:
        root: The folder; it is there itself, and nothing in it is safe.
        monkeypatch: Ends the watch with the test.
        """
        self._root = root
        self._bytes: dict[int, bytes] = {}
        self._entries: dict[int, dict[str, tuple[int, bool]]] = {}
        self._real: Callable[[int], None] = os.fsync
        self.synced = 0
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, fd: int) -> None:
        self._real(fd)
        self.synced += 1
        found, path = os.fstat(fd), Path(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115
        if stat.S_ISDIR(found.st_mode):
            with os.scandir(path) as entries:
                self._entries[found.st_ino] = {e.name: (e.inode(), e.is_dir()) for e in entries}
        else:
            self._bytes[found.st_ino] = path.read_bytes()

    def after_power_cut(self, into: Path) -> Path:
        """What is left of the folder, made anew in another one. A file that was not synced is empty."""
        self._make(self._root.stat().st_ino, into)
        return into

    def _make(self, folder: int, into: Path) -> None:
        into.mkdir(parents=True)
        for name, (inode, is_folder) in self._entries.get(folder, {}).items():
            if is_folder:
                self._make(inode, into / name)
            else:
                (into / name).write_bytes(self._bytes.get(inode, b""))
