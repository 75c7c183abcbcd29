"""Keep a Delta table small: compact small files, remove old ones, and shorten the log by age."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import polars as pl
from deltalake import CommitProperties, DeltaTable
from deltalake.exceptions import CommitFailedError

from headrace.core.errors import Fatal
from headrace.lake.delta import history
from headrace.lake.delta.storage import COMMIT_RETRIES, LOG, DeltaStorage, translated

#: Size below which files may be merged (delta-rs' default is 100 MiB).
_COMPACTED_BYTES = 256 << 20


@dataclass(frozen=True, slots=True)
class Maintained:
    """What maintenance did to one table.

    Attributes:
        compacted: Small files that were merged.
        written: Files that they became.
        removed: Old files that were removed from storage.
    """

    compacted: int = 0
    written: int = 0
    removed: int = 0


def maintain(
    storage: DeltaStorage, keep: timedelta, keep_log: timedelta, needed_since: datetime | None = None
) -> Maintained:
    """Merge small files, remove files that nothing has needed for ``keep``, and shorten the log.

    Rows, positions and publications stay as they are. Writers may go on meanwhile: if one of them erases from a
    day, that day is left for the next time. A reader of an old version that takes longer than ``keep`` finds
    its files gone. So does a publisher that is further behind; it then takes the newest version whole. The last
    versions of days stay whole for the storage's ``version_days``.

    Args:
        storage: The table.
        keep: Age up to which files stay that the newest version does not need.
        keep_log: Age up to which old versions can be read.
        needed_since: When the first version that somebody still has to read was committed. If that is longer
            ago than ``keep_log``, the log stays as it is.

    Raises:
        Fatal: There is no room to merge files; everything removable has been removed.
    """
    hours = max(1, round(keep / timedelta(hours=1)))
    done = {"numFilesRemoved": 0, "numFilesAdded": 0}
    with translated(storage.uri):
        handle = storage.newest()
        _keep_log(storage, handle, keep_log)
        needed = _lacks_room(storage, handle)
        if not needed:
            with suppress(CommitFailedError):  # an erasure came first
                done = handle.optimize.compact(
                    writer_properties=storage.writer,
                    commit_properties=CommitProperties(max_commit_retries=COMMIT_RETRIES),
                )
        storage.sync(handle.version())  # before what it replaces is removed
        stay = history.expire(storage)
        removed = handle.vacuum(
            retention_hours=hours,
            enforce_retention_duration=False,
            dry_run=False,
            keep_versions=stay or None,
            full=bool(storage.version_days),  # files of versions that have expired are in no log any longer
        )
        handle.create_checkpoint()
        if storage.disk is not None:
            storage.disk.checkpoint(handle.version())
        if needed_since is None or needed_since > datetime.now(UTC) - keep_log:
            history.shorten_by_age(storage, keep_log)
    if needed:
        raise Fatal(
            f"no space left for {storage.uri}: putting its small files together takes up to {needed >> 20:,} MiB; free"
            " some, nothing was lost, then run again"
        )
    return Maintained(done["numFilesRemoved"], done["numFilesAdded"], len(removed))


def _lacks_room(storage: DeltaStorage, handle: DeltaTable) -> int:
    """Return the bytes that compaction may write if a local disk has less room, else 0.

    Asked beforehand: on a full disk delta-rs' threads panic, with a backtrace on stderr.
    """
    if storage.disk is None:
        return 0
    actions = pl.DataFrame(handle.get_add_actions(flatten=True))
    if not actions.height:
        return 0
    day = f"partition.{storage.table.partition}"
    small = actions.filter(pl.col("size_bytes") < _COMPACTED_BYTES)
    written = int(small.filter(pl.len().over(day) > 1)["size_bytes"].sum())
    return written if written > shutil.disk_usage(storage.uri).free else 0


def _keep_log(storage: DeltaStorage, handle: DeltaTable, keep: timedelta) -> None:
    """Write the retention of the log into the table's properties."""
    hours = max(1, round(keep / timedelta(hours=1)))
    wanted = {
        **LOG,
        "delta.logRetentionDuration": f"interval {hours} hours",
        "delta.dataSkippingStatsColumns": ",".join(storage.pruned_by()),
    }
    if wanted.items() - handle.metadata().configuration.items():
        with suppress(CommitFailedError):  # somebody else wrote meanwhile: the next time will do
            handle.alter.set_table_properties(wanted)
