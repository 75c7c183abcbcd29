"""An export takes as much memory as some pages of its files, however many rows a row group has."""

from __future__ import annotations

import random
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest

from builders import event
from headrace.config.settings import load_settings
from headrace.contracts import check_batch
from headrace.core.batch import MicroBatch
from headrace.flow.commit import land
from headrace.streams.stream import streams

ROWS = 200_000
#: Bytes by which a process may grow; a row group of so many rows alone, decoded, is more.
MOST = 140 << 20

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the kernel tells no peak"),
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One file of one row group, of rows that hardly repeat."""
    found, rng = tmp_path_factory.mktemp("large"), random.Random(7)
    stream = streams(load_settings(home=found))["events"]
    payloads = [
        event(event_id=str(uuid4()), duration_ms=rng.random() * 3000, page_url=f"/{rng.getrandbits(256):x}")
        for _ in range(ROWS)
    ]
    batch = MicroBatch.of("test", payloads, cursor="test/0", offset=range(ROWS))
    now = datetime(2026, 11, 1, tzinfo=UTC)
    checked = check_batch(stream.contract, batch, batch_id="b", now=now, limits=stream.limits)
    land(batch, stream.contract, stream.lake, stream.limits, checked=checked)
    stream.close()
    return found


def grown(home: Path, *asked: str) -> int:
    command = [sys.executable, str(Path(__file__).with_name("export_peak.py")), str(home), *asked]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    peak, written = map(int, done.stdout.split())
    assert written > ROWS * 40
    return peak


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_an_export_grows_by_less_than_its_row_groups(home: Path, form: str) -> None:
    assert grown(home, form) < MOST


def test_one_that_decodes_whole_row_groups_is_noticed(home: Path) -> None:
    assert grown(home, "csv", "whole") > MOST
