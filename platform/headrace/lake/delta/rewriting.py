"""Replace files of a Delta table by others, in one commit that is refused if any of them is gone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import polars as pl
from deltalake import DeltaTable, Transaction
from deltalake.exceptions import CommitFailedError
from deltalake.transaction import AddAction, RemoveAction
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from headrace.core.errors import Conflict, Retriable
from headrace.lake.delta.storage import COMMIT_RETRIES, DeltaStorage, translated

#: Attempts to replace files while others commit, too.
REPLACING = Retrying(
    retry=retry_if_exception_type(Conflict),
    stop=stop_after_attempt(12),
    wait=wait_random_exponential(multiplier=0.1, max=5),
    reraise=True,
)
#: Rows of the files that are rewritten at once: they stay in memory, as Parquet, until their commit.
ROWS_AT_ONCE = 4_000_000


def replace_files(
    storage: DeltaStorage,
    handle: DeltaTable,
    removed: Sequence[RemoveAction],
    added: Sequence[AddAction],
    said: Mapping[str, str],
    moves: Callable[[DeltaTable], list[Transaction]] = lambda handle: [],
) -> None:
    """Commit the removal of files together with what remains of them.

    delta-rs does not notice if a compaction removed one of the files first; both would then add their rows. So
    nothing may come between the snapshot, in which all files are live, and the commit. If something did, it is
    examined.

    Args:
        storage: The table.
        handle: A snapshot; at the commit's version afterwards.
        removed: Files that are live.
        added: What becomes of them.
        said: Notes in the commit's metadata.
        moves: Returns the transactions that the commit makes, as of a snapshot.

    Raises:
        Conflict: Another writer removed one of the files first, or changed the table.
    """
    gone = {action.path for action in removed}
    for _ in range(COMMIT_RETRIES):
        with translated(storage.uri):
            live = pl.DataFrame(handle.get_add_actions(flatten=True))
            if not live.height or not gone <= {*live["path"]}:
                raise Conflict(f"another writer rewrote files of {storage.uri} first")
            moved = moves(handle)
        try:
            storage.commit(handle, [*added, *removed], moved, said, retries=0)
        except (Conflict, Retriable) as error:
            if not isinstance(error.__cause__, CommitFailedError):
                raise
            if "changed since last commit" in str(
                error.__cause__
            ):  # the files may have other columns than it now
                raise Conflict(f"another process changed {storage.uri} first") from error
            with translated(storage.uri):
                handle.update_incremental()
        else:
            with translated(storage.uri):
                handle.update_incremental()
            return
    raise Conflict(f"others commit to {storage.uri} all the time")
