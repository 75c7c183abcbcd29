"""A disk that is full, for real: a small one of its own, in a mount namespace of a child process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SIZE = "24m"
_PRELUDE = """
import os, sys, uuid
from datetime import timedelta
import polars as pl
sys.path.insert(0, TESTS)
from builders import NOW, event
from deltalake import DeltaTable
from headrace.core.batch import ORIGIN_KEY, MicroBatch
from headrace.contracts import EVENTS, Limits
from headrace.core.errors import HeadraceError
from headrace.flow.commit import StreamLake, land
from headrace.lake.delta import DeltaLakeTable
from headrace.lake.suppression import ERASURES, Erasures

def batch(n, rows=5_000):
    payloads = [event(event_id=uuid.uuid4().hex * 3, user_id=f"u{i % 50}") for i in range(rows)]
    return MicroBatch.of("c", payloads, cursor="c/0", offset=range(n * rows, (n + 1) * rows), timestamp=NOW)

def fill(leave):
    free = os.statvfs(DISK).f_bavail * os.statvfs(DISK).f_frsize
    with open(DISK + "/filler", "wb") as file:
        file.write(b"x" * max(0, free - leave))

lake = StreamLake(DeltaLakeTable(DISK, EVENTS.table), DeltaLakeTable(DISK, EVENTS.rejected_table))
for n in range(3):
    land(batch(n), EVENTS, lake, Limits())
gone = lake.good.scan().filter(pl.col("user_id") == "u7").select(ORIGIN_KEY).collect()
"""


def on_a_small_disk(tmp_path: Path, script: str) -> subprocess.CompletedProcess[str]:
    """Run Python with ``DISK``, which is small, and what the prelude makes in it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    names = f"DISK, TESTS = {str(disk)!r}, {str(Path(__file__).parents[1])!r}"
    mounted = f'mount -t tmpfs -o size={SIZE} tmpfs {disk} && exec {sys.executable} -c "$1"'
    done = subprocess.run(
        [
            "unshare",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            mounted,
            "sh",
            f"{names}\n{_PRELUDE}\n{script}",
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode and ("unshare:" in done.stderr or "mount:" in done.stderr):
        pytest.skip(f"no disk of its own here: {done.stderr.strip().splitlines()[0]}")
    return done


TRIED = """
def tried(what):
    try:
        what()
    except HeadraceError as error:
        print(type(error).__name__, error)
"""


@pytest.mark.parametrize("leave", [0, 30_000])
def test_an_erasure_says_in_one_line_that_the_disk_is_full(tmp_path: Path, leave: int) -> None:
    done = on_a_small_disk(
        tmp_path,
        f"""{TRIED}
fill({leave})
tried(lambda: lake.good.erase(gone))
tried(lambda: lake.good.maintain(timedelta(days=1), timedelta(days=1)))
{'tried(lambda: Erasures(DeltaLakeTable(DISK, ERASURES)).suppress("u7"))' if not leave else ""}
os.unlink(DISK + "/filler")
assert lake.good.scan().collect().height == 15_000
assert lake.good.maintain(timedelta(days=1), timedelta(days=1)).compacted == 3
assert lake.good.erase(gone).rows == 300
assert lake.good.scan().collect().height == 14_700
""",
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == (2 if leave else 3)
    assert all(line.startswith("Fatal no space left for ") and "nothing was lost" in line for line in lines)
    assert not done.stderr


def test_delta_rs_would_panic(tmp_path: Path) -> None:
    """The control: why erasures do not delete through it, and why compaction asks for room first."""
    done = on_a_small_disk(
        tmp_path,
        """
fill(30_000)
DeltaTable(lake.good.uri).delete("_offset < 10")
""",
    )
    assert "panicked" in done.stderr
