"""The embedded stack, started when the first test of a process asks for it, and small builders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import hypothesis
import polars as pl
import psutil
import pytest

from builders import NOW
from headrace.config.settings import Settings, load_settings
from headrace.contracts import Contract, Limits, check_batch
from headrace.core.batch import CheckedBatch, MicroBatch, Position
from headrace.local.embedded import EmbeddedStack

# a busy machine makes an example slow, not wrong
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


#: The files that take longest, the longest first: begun last, one of them would be what all wait for in the end.
LONGEST = (
    "marts/test_marts.py",
    "installation/test_own_stream.py",
    "installation/test_first_stream.py",
    "marts/test_histories.py",
    "test_readme.py",
    "demo/test_demo.py",
    "marts/test_speed.py",
    "orchestration/test_new_stream.py",
    "chaos/test_chaos.py",
    "marts/test_real_data.py",
    "orchestration/test_definitions.py",
    "cli/test_cli.py",
    "orchestration/test_tools.py",
    "marts/test_cluster.py",
)

MEMORY = Path("/dev/shm")
#: What must be free there and in the machine's memory, bytes; the tests fill less than half of it.
ROOM = 8 << 30


def pytest_configure() -> None:
    """Temporary folders are in memory where there is room: servers write and remove tens of thousands of files."""
    if MEMORY.is_dir() and min(shutil.disk_usage(MEMORY).free, psutil.virtual_memory().available) > ROOM:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A worker gets the tests of a file together, because they share fixtures, and the files in this order."""
    places = {Path(__file__).parent / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@dataclass(frozen=True)
class Stack:
    """A running embedded stack and the environment that points at it."""

    home: Path
    environment: dict[str, str]
    settings: Settings


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker, queue and ClickHouse of their own, below a folder with a space in its name."""
    home = tmp_path_factory.mktemp("the stack")
    running = EmbeddedStack(home)
    with running as endpoints:
        values: dict[str, Any] = {
            name.removeprefix("HEADRACE_").lower(): value for name, value in endpoints.items()
        }
        settings = load_settings(home=home, ingest_linger_seconds=0, **values)
        own = {"HEADRACE_HOME": str(home), "HEADRACE_INGEST_LINGER_SECONDS": "0"}  # runs end when idle
        yield Stack(home, {**endpoints, **own}, settings)


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A developer's own variables are not part of any test, nor what another test has exported."""

    def ours() -> set[str]:
        return {name for name in os.environ if name.startswith(("HEADRACE_", "DBT_"))}

    before = ours()
    for name in before:
        monkeypatch.delenv(name)
    yield
    for name in ours() - before:
        del os.environ[name]


@pytest.fixture
def batch_of() -> Callable[..., MicroBatch]:
    """``batch_of(payloads, start=0, cursor=...)``: a micro-batch as a log would hand it over."""

    def build(payloads: Sequence[bytes | None], start: int = 0, cursor: str = "test/0") -> MicroBatch:
        count = len(payloads)
        return MicroBatch.of(
            "test",
            payloads,
            cursor=cursor,
            offset=range(start, start + count),
            key=b"k",
            timestamp=NOW,
            before=Position({cursor: start}),
            after=Position({cursor: start + count}),
        )

    return build


@pytest.fixture
def judge() -> Callable[..., CheckedBatch]:
    """``judge(contract, payloads)``: what the contract makes of messages; offsets are their places."""

    def judged(
        contract: Contract, payloads: list[bytes | None] | pl.Series, now: datetime = NOW
    ) -> CheckedBatch:
        batch = MicroBatch.of(
            "test",
            payloads,
            cursor="test/0",
            offset=range(len(payloads)),
            before=Position(),
            after=Position({"test/0": len(payloads)}),
        )
        return check_batch(contract, batch, batch_id="test", now=now, limits=Limits())

    return judged


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, bytes], Path]:
    """``write(name, content)``: a file."""

    def written(name: str, content: bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content)
        return path

    return written
