"""The doors of the house: who may import whom."""

from __future__ import annotations

import ast
import platform
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from conftest import LONGEST

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "headrace"
FILES = sorted(PACKAGE.rglob("*.py"))
ROOMS = {"contracts", "formats", "sources", "lake", "warehouse", "producers"}
#: Driver -> files that may import it, as prefixes below the package.
DRIVERS = {
    "dagster": ("orchestration/",),
    "dagster_dbt": ("orchestration/",),
    "dagster_aws": ("orchestration/",),
    "dagster_postgres": ("orchestration/instance.py",),
    "kafka": (
        "kafka_access.py",
        "sources/kafka.py",
        "sources/kafka_fetch.py",
        "producers/kafka.py",
        "local/broker.py",
        "bench/bare.py",
        "bench/peers/by_hand.py",
    ),
    "boto3": (
        "sqs_access.py",
        "secret_store.py",
        "local/queue.py",
        "bench/bare.py",
        "orchestration/resources.py",
        "orchestration/instance.py",
    ),
    "deltalake": ("lake/delta.py", "lake/parquet.py", "lake/rewrite.py", "bench/bare.py", "bench/peers/"),
    "clickhouse_connect": ("warehouse/server.py", "bench/bare.py"),
    "apprise": ("alerts/channels.py",),
    "chdb": ("local/clickhouse/",),
    "pandera": ("contracts/",),
}


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
    return frozenset(found)


def below(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_is_imported_in_its_adapters_alone(driver: str) -> None:
    users = {below(f) for f in FILES if any(n.split(".")[0] == driver for n in imports(f))}
    strangers = {u for u in users if not u.startswith(DRIVERS[driver])}
    assert not strangers
    assert users, f"nobody uses {driver}: it is no dependency then"


def test_a_room_imports_what_crosses_between_rooms_and_itself() -> None:
    common = {"batch", "errors", "compiled", "core"}
    allowed = {room: {*common, room} for room in ROOMS}
    allowed["formats"] |= {"contracts"}  # what a file's columns are
    allowed["sources"] |= {"formats", "kafka_access"}
    allowed["producers"] |= {"contracts", "formats", "kafka_access", "sqs_access"}
    for file in FILES:
        room = below(file).split("/")[0]
        if room in ROOMS:
            ours = {n.split(".")[1] for n in imports(file) if n.startswith("headrace.")}
            assert ours <= allowed[room], below(file)


def test_settings_alone_read_the_environment() -> None:
    exempt = {"settings.py", "local/guard.py", "local/clickhouse/__main__.py", "local/clickhouse/server.py"}
    exempt |= {"orchestration/code_server.py"}  # gives a forked server the environment that Dagster says
    readers = {
        below(f) for f in FILES if any(w in f.read_text() for w in ("os.environ", "os.getenv", "getenv("))
    }
    assert readers <= exempt
    assert "settings.py" in readers


def test_platform_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "platform" / "__init__.py").exists()
    assert platform.system()
    found = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.system())"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert found.stdout.strip()


def test_the_command_line_starts_without_the_heavy_imports() -> None:
    heavy = "{'dagster', 'dbt', 'pandera', 'polars', 'pandas', 'kafka', 'boto3', 'deltalake', 'apprise'}"
    code = f"import sys, headrace.cli; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_the_files_that_come_first_are_there() -> None:
    assert [name for name in LONGEST if not (ROOT / "tests" / name).is_file()] == []
