"""Keep the Delta log of a table on the local disk short, by number of commits.

Every commit lists the log. On a local disk a listing reads the status of each file, so its cost grows with the
log, by some 6 µs per commit. Object storage lists from a given name on. A log there may be as long as it likes,
and is shortened by age alone (``headrace.lake.delta.maintenance``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from pathlib import Path

_VERSIONED = re.compile(r"(?P<version>\d{20})\.(?P<kind>.+)")
_COMMIT, _CHECKPOINT = "json", "checkpoint.parquet"


def shorten(
    log: Path, needed: int, keep: int, mark: bytes, stay: Callable[[int], Collection[int]] = lambda begin: ()
) -> int:
    """Remove the log before the last checkpoint that precedes everything still needed.

    The table can then be opened at any version from that checkpoint on. Readers and writers that opened the
    table within the last ``keep`` commits may go on meanwhile, and so may another ``shorten``. After a crash
    the log begins earlier.

    Args:
        log: The folder ``_delta_log``.
        needed: First version that somebody still has to read.
        keep: Commits that stay in any case.
        mark: A commit that holds these bytes stays, and so do all later ones.
        stay: Given the version with which the log will begin, makes earlier ones readable without the commits around
            them, and returns them.

    Returns:
        The version with which the log begins.
    """
    found: dict[str, set[int]] = {}
    names = []
    for name in (path.name for path in log.iterdir()):
        if named := _VERSIONED.fullmatch(name):
            found.setdefault(named["kind"], set()).add(int(named["version"]))
            names.append((int(named["version"]), name))
    commits = _without_gap(found.get(_COMMIT, set()))
    if not commits:
        return 0
    end = min(needed, commits[-1] - keep + 1)
    marked = (v for v in commits if v < end and _holds(log / f"{v:020d}.{_COMMIT}", mark))
    end = next(marked, end)
    begin = max((version for version in found.get(_CHECKPOINT, ()) if version <= end), default=0)
    kept = stay(begin) if commits[0] < begin else {version for version, _ in names}
    for version, name in sorted(names):
        if version < begin and version not in kept:
            (log / name).unlink(missing_ok=True)
    return max(begin, commits[0])


def _without_gap(commits: set[int]) -> list[int]:
    """Return the newest commits without a gap: earlier ones belong to versions that are kept by the day."""
    last = first = max(commits, default=0)
    while first - 1 in commits:
        first -= 1
    return [*range(first, last + 1)] if commits else []


def _holds(commit: Path, mark: bytes) -> bool:
    with suppress(FileNotFoundError):  # another process shortens the log, too
        return mark in commit.read_bytes()
    return False
