"""Protect a table on the local disk against power cuts: sync commits, and mend a log that was cut off.

Commits appear whole, by ``link()``, but delta-rs syncs nothing. After a power cut a commit may be gone, empty,
or name files that are gone. So whoever acts on a commit (tells a source, publishes it, builds on it) first
syncs it. All earlier commits that may be unsynced are synced with it: files, then their folders, then the log
(docs/adr/0026).

Commits on which nobody acted may still be torn. They are at the end of the log, and nobody was told of them.
They are set aside, and their messages are read again.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import re
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

log = logging.getLogger(__name__)

#: Key in the information of a commit: how many files and cursors it names, which reveals a commit that was cut off.
ACTIONS = "headrace.actions"
_NAMED = {"add", "remove", "txn", "metaData"}
#: Folder of a table with the torn ends of its log. Readers and vacuum skip names that begin with _.
SET_ASIDE = "_set_aside"
#: Commits before the newest that another process may not have synced: it was killed, or is still at it.
_UNSURE = 40
#: Seconds that a torn file must stay unchanged. A commit on a disk of this machine is whole from its first moment.
_SETTLE_SECONDS = 2.0
_SYNCED_AT_ONCE = 8
_COMMIT = re.compile(r"(?P<version>\d{20})\.json")
_CHECKPOINT = re.compile(r"(?P<version>\d{20})\.checkpoint(\..+)?\.parquet")
_MAGIC = b"PAR1"
_HINT = "_last_checkpoint"


class LocalDisk:
    """Syncs and repairs a table's files on a local disk. Safe for several threads.

    Args:
        folder: Folder of the table.
        sync: Whether to sync at all.
        settle_seconds: How long a torn file is watched before it is set aside.
    """

    def __init__(self, folder: Path, *, sync: bool = True, settle_seconds: float | None = None) -> None:
        self._folder, self._log, self._sync = folder, folder / "_delta_log", sync
        self._settle_seconds = _SETTLE_SECONDS if settle_seconds is None else settle_seconds
        self._lock = threading.Lock()
        self._synced: int | None = None  # all commits up to this version are synced
        self._files: set[str] = set()  # synced ahead of their commit
        self._folders: set[Path] = set()  # synced with all their parents

    def files(self, paths: Iterable[str]) -> None:
        """Sync data files that no commit names yet, and the folders that lead to them."""
        if self._sync:
            paths = [path for path in paths if path not in self._files]
            self._sync_files(paths)
            self._files.update(paths)

    def commits(self, through: int) -> None:
        """Sync the log up to a version, with its checkpoints and the files that its commits added.

        Raises:
            OSError: The disk fails. Nobody may be told of the version.
        """
        if not self._sync:
            return
        with self._lock:
            first = max(0, through - _UNSURE) if self._synced is None else self._synced + 1
            if first > through:
                return
            for version in range(first, through + 1):
                self._sync_commit(version)
            self._sync_folder(self._log)
            self._synced = through

    def _sync_commit(self, version: int) -> None:
        commit = self._log / f"{version:020d}.json"
        with suppress(FileNotFoundError):  # the log has been shortened
            others = [path for path in _added(_actions(commit)) if path not in self._files]
            self._files.clear()  # none is added twice
            self._sync_files(others)
            _fsync(commit)
        self._sync_checkpoint(version)

    def checkpoint(self, version: int) -> None:
        """Sync the checkpoint of a version, before the commits that it replaces are removed."""
        if self._sync:
            self._sync_checkpoint(version)
            self._sync_folder(self._log)

    def _sync_checkpoint(self, version: int) -> None:
        with suppress(FileNotFoundError):
            _fsync(self._log / f"{version:020d}.checkpoint.parquet")
            _fsync(self._log / _HINT)

    def _sync_files(self, paths: Iterable[str]) -> None:
        found = [self._folder / path for path in paths if not _elsewhere(path)]
        if len(found) > 2:  # the disk combines syncs that are requested at the same time
            with ThreadPoolExecutor(_SYNCED_AT_ONCE, "fsync") as pool:
                list(pool.map(_fsync_if_there, found))
        else:
            for file in found:
                _fsync_if_there(file)
        for folder in sorted({file.parent for file in found}):
            self._sync_folder(folder)

    def _sync_folder(self, folder: Path) -> None:
        """Sync the entries of a folder, and those of its parents until they are known to be safe."""
        _fsync_if_there(folder)
        if folder in self._folders:
            return
        for above in folder.parents:
            with suppress(PermissionError):  # a folder that we may not open was there before us
                _fsync(above)
            if above in self._folders or above.is_mount():
                break
        self._folders |= {folder, self._folder}

    def repair(self) -> list[str]:
        """Set aside what a power cut left torn at the end of the log.

        Returns:
            Names of the files that were set aside.
        """
        done: list[str] = []
        while torn := self._torn_end():
            path, why = torn
            seen = _identity(path)
            time.sleep(self._settle_seconds)
            with self._alone():
                if self._torn_end() != torn or _identity(path) != seen:
                    continue  # another process was at it
                done += self._put_aside(path)
            log.warning(
                "%s %s, as after a power cut: it is set aside in %s; nobody was told that it had landed, so it is"
                " read again",
                path,
                why,
                self._folder / SET_ASIDE,
            )
        return done

    def _torn_end(self) -> tuple[Path, str] | None:
        """Return the last commit, or else the last checkpoint, with the reason if it is torn; else None."""
        commits, checkpoints = self._listed()
        if commits:
            last = self._log / commits[max(commits)]
            with suppress(FileNotFoundError):
                if why := self._why_torn(last):
                    return last, why
        if checkpoints:
            for name in checkpoints[max(checkpoints)]:
                with suppress(FileNotFoundError):
                    if _torn_parquet(self._log / name):
                        return self._log / name, "is no whole Parquet file"
        return None

    def _listed(self) -> tuple[dict[int, str], dict[int, list[str]]]:
        """List the names of commits and checkpoints by version."""
        commits: dict[int, str] = {}
        checkpoints: dict[int, list[str]] = {}
        with suppress(FileNotFoundError):
            for entry in os.scandir(self._log):
                if named := _COMMIT.fullmatch(entry.name):
                    commits[int(named["version"])] = entry.name
                elif named := _CHECKPOINT.fullmatch(entry.name):
                    checkpoints.setdefault(int(named["version"]), []).append(entry.name)
        return commits, checkpoints

    def _why_torn(self, commit: Path) -> str:
        """Explain why a commit is torn; empty if it is whole."""
        try:
            actions = _actions(commit)
        except ValueError:
            return "is cut off"
        if not actions:
            return "is empty"
        said = next((a["commitInfo"].get(ACTIONS) for a in actions if "commitInfo" in a), None)
        if said is not None and int(said) != sum(not _NAMED.isdisjoint(a) for a in actions):
            return "is cut off"
        for add in (a["add"] for a in actions if "add" in a):
            path = unquote(str(add["path"]))
            if _elsewhere(path):
                continue
            try:
                whole = (self._folder / path).stat().st_size == add["size"]
                if not whole or _torn_parquet(self._folder / path, look_inside=False):
                    return f"names {path}, which is cut off"
            except FileNotFoundError:
                return f"names {path}, which is not there"
        return ""

    def _put_aside(self, path: Path) -> list[str]:
        """Move a file of the log away; with a commit, also the checkpoints made of it."""
        named = _COMMIT.fullmatch(path.name) or _CHECKPOINT.fullmatch(path.name)
        assert named is not None
        version, names = int(named["version"]), [path.name]
        _, checkpoints = self._listed()
        later = [name for at, found in checkpoints.items() if at >= version for name in found]
        mark = f"{time.time_ns()}"
        for name in dict.fromkeys((_HINT, *later, *names)):
            with suppress(FileNotFoundError):
                (self._log / name).rename(self._folder / SET_ASIDE / f"{name}.{mark}")
        for folder in (self._log, self._folder / SET_ASIDE, self._folder):
            _fsync(folder)
        self._synced = None
        return names

    @contextmanager
    def _alone(self) -> Iterator[None]:
        folder = self._folder / SET_ASIDE
        folder.mkdir(exist_ok=True)
        with (folder / ".lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # held for milliseconds
            yield

    def set_aside(self) -> list[str]:
        """List the files that were set aside and still exist."""
        folder = self._folder / SET_ASIDE
        return sorted(path.name for path in folder.glob("0*.*")) if folder.is_dir() else []

    def damage(self) -> str:
        """Name the part of the log before its end that cannot be read; empty if there is none."""
        commits, checkpoints = self._listed()
        begin = max((at for at in checkpoints if at <= max(commits, default=0)), default=0)
        for version in sorted(at for at in commits if at >= begin):
            try:
                _actions(self._log / commits[version])
            except ValueError:
                return f"{self._log / commits[version]} is cut off, and later commits follow it"
        for name in checkpoints.get(begin, ()):
            try:
                pq.read_table(self._log / name)
            except (pa.ArrowException, OSError):
                return f"{self._log / name} is no whole Parquet file"
        return ""


def _actions(commit: Path) -> list[dict[str, dict[str, Any]]]:
    """Parse a commit; an unsynced file may be blank or zeros, and then has no actions.

    Raises:
        ValueError: The commit is cut off.
    """
    content = commit.read_bytes()
    if not content.strip(b"\0 \n"):
        return []
    return [json.loads(line) for line in content.splitlines() if line]


def _added(actions: list[dict[str, dict[str, Any]]]) -> list[str]:
    return [unquote(str(a["add"]["path"])) for a in actions if "add" in a]


def _elsewhere(path: str) -> bool:
    """Tell whether a file of the table is outside its folder, as those of a clone are."""
    return path.startswith("/") or "://" in path


def _torn_parquet(path: Path, *, look_inside: bool = True) -> bool:
    size = path.stat().st_size
    if size < 2 * len(_MAGIC):
        return True
    with path.open("rb") as file:
        begin = file.read(len(_MAGIC))
        file.seek(-len(_MAGIC), os.SEEK_END)
        if (begin, file.read()) != (_MAGIC, _MAGIC):
            return True
    if not look_inside:
        return False
    try:
        pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        return True
    return False


def _identity(path: Path) -> tuple[int, int, int] | None:
    with suppress(FileNotFoundError):
        found = path.stat()
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


def _fsync_if_there(path: Path) -> None:
    with suppress(FileNotFoundError):  # a later commit removed it from the table, and a vacuum from the disk
        _fsync(path)


def _fsync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if hasattr(fcntl, "F_FULLFSYNC"):  # macOS' fsync leaves it in the disk's cache
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
        else:
            os.fsync(fd)
    finally:
        os.close(fd)
