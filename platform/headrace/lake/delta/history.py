"""Keep the last version of each day of a Delta table, although its log is short and its old files are removed.

A checkpoint alone is a whole version: delta-rs, Polars and DuckDB open it although every commit around it is gone. So
of a day whose commits leave the log, the last version stays as its checkpoint and its commit, which tells when it was
made. Vacuum spares the files that it names (docs/adr/0049).

The checkpoint of an old version is made in a folder of its own and put into the log as one file: delta-rs'
``create_checkpoint`` of an old version would have ``_last_checkpoint`` point back at it.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

import polars as pl
import pyarrow.dataset as ds
import pyarrow.fs as pafs
from deltalake import DeltaTable, Transaction
from deltalake.exceptions import DeltaError

from headrace.core.errors import HistoryGone
from headrace.lake.arrow import arrow_schema
from headrace.lake.delta.mixed import by_types
from headrace.lake.delta.storage import DeltaStorage, translated
from headrace.lake.layout import Layout

#: Property of a table that was ever restored; and the transaction that counts its restores.
RESTORES = "headrace.restores"
_LOG = "_delta_log"
_VERSIONED = re.compile(r"(?P<version>\d{20})\.(?P<kind>json|checkpoint.*parquet)")


@dataclass(frozen=True, slots=True)
class Log:
    """What the folder of a log holds.

    Attributes:
        commits: Versions with a commit, with the time at which its file was written, in order.
        checkpoints: Versions with a checkpoint.
        names: Names of files by version.
    """

    commits: dict[int, datetime]
    checkpoints: frozenset[int]
    names: dict[int, list[str]]

    @property
    def run(self) -> range:
        """The versions without a gap that end with the newest: the log as writers know it."""
        if not self.commits:
            return range(0)
        last = first = max(self.commits)
        while first - 1 in self.commits:
            first -= 1
        return range(first, last + 1)

    @property
    def readable(self) -> range:
        """The versions of ``run`` that can be opened: from its first checkpoint, or the table's beginning, on."""
        run = self.run
        if not run or run[0] == 0:
            return run
        return range(min((v for v in self.checkpoints if v >= run[0]), default=run.stop), run.stop)

    @property
    def kept(self) -> list[int]:
        """The versions before ``readable`` that stayed as checkpoints."""
        begin = self.readable.start
        return sorted(version for version in self.checkpoints if version < begin)


def read_log(storage: DeltaStorage) -> Log:
    """List the log once."""
    commits: dict[int, datetime] = {}
    checkpoints: set[int] = set()
    names: dict[int, list[str]] = {}
    for name, written in _listed(storage):
        if not (found := _VERSIONED.fullmatch(name)):
            continue
        version = int(found["version"])
        names.setdefault(version, []).append(name)
        if found["kind"] == "json":
            commits[version] = written
        else:
            checkpoints.add(version)
    return Log(dict(sorted(commits.items())), frozenset(checkpoints), names)


def _listed(storage: DeltaStorage) -> Iterable[tuple[str, datetime]]:
    if storage.disk is not None:
        with suppress(FileNotFoundError), os.scandir(Path(storage.uri) / _LOG) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # another process shortens the log, too
                    yield entry.name, datetime.fromtimestamp(entry.stat().st_mtime, UTC)
        return
    with translated(storage.uri):
        for info in storage.filesystem().get_file_info(pafs.FileSelector(_LOG, allow_not_found=True)):
            yield info.base_name, info.mtime


def committed_at(storage: DeltaStorage, version: int) -> datetime:
    """Return when a version was committed, by the committer's clock (UTC).

    Raises:
        HistoryGone: Its commit is gone, or does not say.
    """
    said = next((a["commitInfo"] for a in storage.actions(version) if "commitInfo" in a), None)
    if said is None or "timestamp" not in said:
        raise HistoryGone(f"version {version} of {storage.uri} does not say when it was committed")
    return datetime.fromtimestamp(said["timestamp"] / 1000, UTC)


def ends_of_days(versions: Sequence[int], at: Callable[[int], datetime], since: date) -> list[int]:
    """Return the versions after which a new UTC day begins, of days since ``since``, in order.

    Args:
        versions: Versions in a row.
        at: Tells when a version was committed; asked for few of them.
        since: First day.
    """
    day = cache(lambda version: at(version).date())
    found: list[int] = []

    def look(low: int, high: int) -> None:
        if high <= low or day(versions[low]) == day(versions[high]) or day(versions[high]) < since:
            return
        if high == low + 1:
            if day(versions[low]) >= since:
                found.append(versions[low])
            return
        middle = (low + high) // 2
        look(low, middle)
        look(middle, high)

    look(0, len(versions) - 1)
    return found


@dataclass(frozen=True, slots=True)
class Kept:
    """Versions that stay readable.

    Attributes:
        daily: The last versions of days, with their days.
        before_restores: The versions before restores.
        expired: Versions that stayed as checkpoints and need not any longer.
    """

    daily: dict[int, date]
    before_restores: frozenset[int]
    expired: tuple[int, ...]

    @property
    def versions(self) -> list[int]:
        """All that stay."""
        return sorted({*self.daily, *self.before_restores})


def kept(storage: DeltaStorage, log: Log | None = None, now: datetime | None = None) -> Kept:
    """Say which versions stay readable for the storage's ``version_days``; reads some commits of the log.

    Args:
        storage: The table.
        log: Its log, if it has been listed.
        now: The time (UTC).
    """
    log = log or read_log(storage)
    if not storage.version_days or not log.commits:
        return Kept({}, frozenset(), tuple(log.kept))
    since = (now or datetime.now(UTC)).date() - timedelta(days=storage.version_days)
    at = cache(lambda version: _when(storage, log, version))
    pins = frozenset(r.version - 1 for r in restores(storage.newest()) if r.at.date() >= since)
    daily = {v: at(v).date() for v in log.kept if v not in pins or _ends_a_day(log, v, at)}
    found = {v: day for v, day in daily.items() if day >= since}
    expired = tuple(v for v in log.kept if v not in found and v not in pins)
    found |= {v: at(v).date() for v in ends_of_days(log.readable, at, since)}
    present = {*log.kept, *log.readable}
    return Kept(dict(sorted(found.items())), pins & present, expired)


def _ends_a_day(log: Log, version: int, at: Callable[[int], datetime]) -> bool:
    return version + 1 in log.commits and at(version).date() != at(version + 1).date()


def _when(storage: DeltaStorage, log: Log, version: int) -> datetime:
    """Tell when a version was committed; by its file, if the commit does not say."""
    try:
        return committed_at(storage, version)
    except HistoryGone:
        return log.commits.get(version, datetime.fromtimestamp(0, UTC))


def keep_before(storage: DeltaStorage, begin: int) -> set[int]:
    """Make checkpoints of the versions before ``begin`` that stay, so that the commits around them may go.

    Returns:
        The versions whose commits and checkpoints stay.
    """
    log = read_log(storage)
    stay = {v for v in kept(storage, log).versions if v < begin}
    for version in sorted(stay):
        with suppress(HistoryGone):  # the log has a gap below it
            checkpoint_at(storage, version, log)
    return {*stay, *(v for v in log.kept if v < begin)}  # those that are too old go with ``expire``


def shorten_by_age(storage: DeltaStorage, keep: timedelta) -> None:
    """Remove the log before the last checkpoint that precedes all commits younger than ``keep``.

    delta-rs' ``cleanup_metadata`` does the same and would take kept versions with it.
    """
    log, since = read_log(storage), datetime.now(UTC) - keep
    run = log.run
    young = next((v for v in run if log.commits[v] >= since), run.stop - 1)
    begin = max((v for v in log.checkpoints if v in run and v <= young), default=0)
    if not any(v < begin for v in run):
        return
    stay = keep_before(storage, begin)
    remove_log(storage, log, [v for v in log.names if v < begin and v not in stay])


def remove_log(storage: DeltaStorage, log: Log, versions: Collection[int]) -> None:
    """Remove commits and checkpoints of versions, the oldest first."""
    filesystem = None if storage.disk is not None else storage.filesystem()
    with translated(storage.uri):
        for version in sorted(versions):
            for name in sorted(
                log.names[version], reverse=True
            ):  # a commit without its checkpoint hurts nobody
                if filesystem is None:
                    (Path(storage.uri) / _LOG / name).unlink(missing_ok=True)
                else:
                    with suppress(FileNotFoundError):
                        filesystem.delete_file(f"{_LOG}/{name}")


def checkpoint_at(storage: DeltaStorage, version: int, log: Log | None = None) -> None:
    """Make a checkpoint of a version, however old, unless there is one.

    Raises:
        HistoryGone: The log cannot be read up to it.
    """
    log = log or read_log(storage)
    if version in log.checkpoints:
        return
    base = max((v for v in log.checkpoints if v <= version), default=-1)
    needed = [n for n in log.names.get(base, ()) if ".checkpoint" in n]
    needed += [f"{v:020d}.json" for v in range(base + 1, version + 1)]
    with TemporaryDirectory(prefix="headrace-checkpoint-") as folder:
        scratch = Path(folder) / _LOG
        scratch.mkdir()
        for name in needed:
            (scratch / name).write_bytes(_read(storage, f"{_LOG}/{name}"))
        with translated(storage.uri):
            DeltaTable(folder, version=version).create_checkpoint()
        name = f"{version:020d}.checkpoint.parquet"
        put_log_file(storage, name, (scratch / name).read_bytes())


def put_log_file(storage: DeltaStorage, name: str, content: bytes) -> None:
    """Write a file of the log, whole or not at all, and sync it."""
    with translated(storage.uri):
        if storage.disk is not None:
            folder, beside = Path(storage.uri) / _LOG, f".{name}.{secrets.token_hex(4)}.tmp"
            (folder / beside).write_bytes(content)
            storage.disk.files([f"{_LOG}/{beside}"])  # before it has its name: whoever sees it relies on it
            (folder / beside).replace(folder / name)
            storage.disk.checkpoint(int(name[:20]))
            return
        # in such pieces for the reason given in ``parquet.StagedFiles.write``
        path, piece = f"{_LOG}/{name}", 1 << 20
        with storage.filesystem().open_output_stream(path, buffer_size=2 * piece) as stream:
            for at in range(0, len(content), piece):
                stream.write(content[at : at + piece])


def _read(storage: DeltaStorage, path: str) -> bytes:
    with storage.opened(path) as source:
        return bytes(source.read())


def openable(storage: DeltaStorage, versions: Iterable[int]) -> list[int]:
    """Return those of the versions that can be opened."""
    found = []
    for version in versions:
        with suppress(HistoryGone):
            at_version(storage, version)
            found.append(version)
    return found


def at_version(storage: DeltaStorage, version: int) -> DeltaTable:
    """Open the table at a version.

    Raises:
        HistoryGone: It can no longer be opened.
    """
    with translated(storage.uri):
        try:
            return DeltaTable(storage.uri, version=version, storage_options=storage.options)
        except DeltaError as error:
            log = read_log(storage)
            if version in log.readable or version in log.checkpoints:
                raise
            raise HistoryGone(
                f"version {version} of {storage.uri} can no longer be read; list those that can with"
                f" 'headrace lake versions {storage.table.name}'"
            ) from error


def scan(storage: DeltaStorage, handle: DeltaTable, dataset: ds.FileSystemDataset) -> pl.LazyFrame:
    """Return files of a version as a lazy frame, with the columns that the contract has and those it does not know.

    A version may be older than the contract: its columns are read in the types that they had and widened here, since
    Arrow refuses to widen numbers that a double cannot hold to the last digit.
    """
    layout = storage.layout(handle)
    if layout.lacking:
        fragments = list(dataset.get_fragments())
        schema = arrow_schema(layout.kept)
        dataset = ds.FileSystemDataset(fragments, schema, dataset.format, dataset.filesystem)
    parts = by_types(handle, dataset)
    mixed = any(one.schema != dataset.schema for one in parts)
    return pl.concat([_scan(one, layout, mixed=mixed) for one in parts])


def _scan(dataset: ds.FileSystemDataset, layout: Layout, *, mixed: bool) -> pl.LazyFrame:
    names = layout.view.schema.names()
    # Polars filters: pyarrow fails to compare strings with those that other writers stored as views
    found = pl.scan_pyarrow_dataset(dataset, allow_pyarrow_filter=False)
    if layout.lacking:
        there = layout.kept.schema
        found = found.select(
            pl.col(name).cast(dtype) if name in there else pl.lit(None, dtype).alias(name)
            for name, dtype in layout.raw.schema.items()
        )
    return found.select(names if layout.simple and not mixed else layout.select(names))


def files_of(handle: DeltaTable) -> set[str]:
    """Return the paths of a version's files."""
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    return {unquote(path) for path in actions["path"]} if actions.height else set()


def expire(storage: DeltaStorage, now: datetime | None = None) -> list[int]:
    """Remove kept versions that are too old from the log; returns those that stay readable for longer.

    The files that only they name are untracked then, which a full vacuum removes.
    """
    log = read_log(storage)
    stay = kept(storage, log, now)
    remove_log(storage, log, stay.expired)
    return openable(storage, stay.versions)


@dataclass(frozen=True, slots=True)
class Restore:
    """A restore that a table has gone through.

    Attributes:
        version: Version that it made; the one before holds what was there until then.
        at: When it was made (UTC).
        to: The moment up to which it changed nothing (UTC).
        undid: Whether it put back what the restore before had taken out.
    """

    version: int
    at: datetime
    to: datetime
    undid: bool = False


def restores(handle: DeltaTable) -> list[Restore]:
    """List the restores of a table, in order."""
    if RESTORES not in handle.metadata().configuration:
        return []
    found = []
    for n in range(1, (handle.transaction_version(RESTORES) or 0) + 1):
        version, at, to, undid = (
            handle.transaction_version(f"{RESTORES}/{n}/{part}") or 0 for part in _PARTS
        )
        found.append(Restore(version, _time(at), _time(to), bool(undid)))
    return found


def before_restores(storage: DeltaStorage, handle: DeltaTable) -> list[DeltaTable]:
    """Open the versions before restores, as far as they can be opened still: they hold what was taken out."""
    found = []
    for one in restores(handle):
        with suppress(HistoryGone):
            found.append(at_version(storage, one.version - 1))
    return found


def noting(number: int, restore: Restore) -> list[Transaction]:
    """Return the transactions that record the restore of this number, from one on."""
    values = (restore.version, _micros(restore.at), _micros(restore.to), int(restore.undid))
    parts = zip(_PARTS, values, strict=True)
    return [Transaction(RESTORES, number), *(Transaction(f"{RESTORES}/{number}/{p}", v) for p, v in parts)]


_PARTS = ("version", "at", "to", "undid")
_EPOCH = datetime.fromtimestamp(0, UTC)


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // timedelta(microseconds=1)


def known_at(storage: DeltaStorage, moment: datetime) -> DeltaTable:
    """Open the version in which the rows ingested up to a moment are those that were known then.

    That is the newest, unless the table has been restored since to an earlier moment: then the one before the restore.

    Raises:
        HistoryGone: That one is no longer kept.
    """
    handle = storage.newest()
    for one in restores(handle):
        if one.at > moment > one.to:
            try:
                return at_version(storage, one.version - 1)
            except HistoryGone:
                raise HistoryGone(
                    f"{storage.uri} was restored to {said(one.to)} at {said(one.at)}, and what it held between the two"
                    f" is no longer kept (HEADRACE_LAKE_VERSION_DAYS={storage.version_days}); ask for a moment"
                    " outside of that"
                ) from None
    return handle


def said(moment: datetime) -> str:
    """Write a time (UTC) for people, exactly."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat(sep=" ")
    return f"{text} UTC"
