"""A disk whose power is cut: an ext4 image of its own, shut down without writing what was not synced."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import threading
import time
from pathlib import Path

from chaos.launcher import Refused

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN, _IOR('X', 125, __u32)
_NO_LOG_FLUSH = 2  # nothing is written any more, the journal neither: fs/ext4/ioctl.c
_UNMOUNTED_WITHIN = 20.0


class Disk:
    """Context manager over a mounted image; ``folder`` is where.

    Raises:
        Refused: On entry: this machine does not let us make or mount one.
    """

    def __init__(self, image: Path, folder: Path, megabytes: int = 512) -> None:
        self._image, self.folder, self._megabytes = image, folder, megabytes

    def __enter__(self) -> Disk:
        self.folder.mkdir(parents=True)
        with self._image.open("wb") as file:
            file.truncate(self._megabytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(Refused):
            self._unmount()
        self._image.unlink(missing_ok=True)

    def _mount(self) -> None:
        _run("mount", "-o", "loop", str(self._image), str(self.folder))

    def cut(self) -> None:
        """Cut the power: what was not synced is gone, and every call fails from now on.

        Raises:
            Refused: The file system knows no such thing.
        """
        fd = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        except OSError as error:
            raise Refused(f"the file system cannot be shut down: {error}") from error
        finally:
            os.close(fd)

    def again(self) -> None:
        """Power is back: mount what is left. Whoever had files open must have ended."""
        self._unmount()
        self._mount()

    def _unmount(self) -> None:
        deadline, never = time.monotonic() + _UNMOUNTED_WITHIN, threading.Event()
        while True:
            try:
                _run("umount", str(self.folder))
                return
            except Refused:
                if time.monotonic() > deadline:
                    raise
                never.wait(0.1)


def _run(*words: str) -> None:
    try:
        subprocess.run(words, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = getattr(error, "stderr", "") or str(error)
        raise Refused(f"{words[0]}: {why.strip()}") from error
