"""The doors of the house: who may import whom."""

from __future__ import annotations

import ast
import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from conftest import LONGEST

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "platform" / "headrace"
FILES = sorted(PACKAGE.rglob("*.py"))
#: Driver -> files that may import it, as prefixes below the package.
DRIVERS = {
    "dagster": ("orchestration/",),
    "dagster_dbt": ("orchestration/",),
    "dagster_aws": ("orchestration/",),
    "dagster_postgres": ("orchestration/runtime/instance.py",),
    "kafka": (
        "clients/kafka.py",
        "sources/kafka/",
        "producers/kafka.py",
        "local/broker.py",
        "bench/bare.py",
        "bench/peers/by_hand.py",
    ),
    "boto3": (
        "clients/sqs.py",
        "clients/s3.py",
        "config/secrets.py",
        "local/queue.py",
        "bench/bare.py",
        "orchestration/resources.py",
    ),
    "deltalake": ("lake/delta/", "bench/bare.py", "bench/peers/"),
    "clickhouse_connect": ("warehouse/server.py", "bench/bare.py"),
    "psycopg2": ("clients/postgres.py",),
    "apprise": ("alerts/channels.py",),
    "chdb": ("local/clickhouse/",),
    "pandera": ("contracts/", "bench/shaping.py", "bench/types.py", "bench/versions.py"),
}


@cache
def imports(path: Path) -> frozenset[str]:
    """Dotted names that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= (
                {f"headrace.{a.name}" for a in node.names} if node.module == "headrace" else {node.module}
            )
    return frozenset(found)


def below(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_driver_is_imported_in_its_adapters_alone(driver: str) -> None:
    users = {below(f) for f in FILES if any(n.split(".")[0] == driver for n in imports(f))}
    strangers = {u for u in users if not u.startswith(DRIVERS[driver])}
    assert not strangers
    assert users, f"nobody uses {driver}: it is no dependency then"


@cache
def doors() -> dict[str, frozenset[str]]:
    """Rooms with those that they may import, from the table in docs/architecture.md."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)/` \| .* \| ([^|]*) \|$", text, re.MULTILINE)
    every = frozenset(room for room, _ in rows)
    found = {}
    for room, allowed in rows:
        named = frozenset(re.findall(r"`(\w+)`", allowed))
        if allowed.startswith("everything but"):
            named = every - named - {room}
        else:
            assert named or allowed == "nothing of ours", room
        found[room] = named
    return found


def rooms_of(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imports(path) if name.startswith("headrace.")}


def strangers(room: str, imported: set[str], allowed: dict[str, frozenset[str]]) -> set[str]:
    return imported - {room} - allowed[room]


def circle(allowed: dict[str, frozenset[str]]) -> list[str]:
    """A way through the doors that comes back to where it began; empty if there is none."""

    def walk(room: str, way: list[str]) -> list[str]:
        if room in way:
            return [*way[way.index(room) :], room]
        return next((found for one in sorted(allowed[room]) if (found := walk(one, [*way, room]))), [])

    return next((found for room in allowed if (found := walk(room, []))), [])


def test_every_room_has_a_row_in_the_table_and_every_row_a_room() -> None:
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and any(path.rglob("*.py"))}
    assert rooms == set(doors())
    assert {path.name for path in PACKAGE.glob("*.py")} == {"__init__.py"}, "a module outside of every room"


@pytest.mark.parametrize("room", sorted(doors()))
def test_a_room_imports_what_the_table_lets_it(room: str) -> None:
    wrong = {
        below(file): found
        for file in FILES
        if below(file).startswith(f"{room}/") and (found := strangers(room, rooms_of(file), doors()))
    }
    assert not wrong


def test_what_a_room_may_import_makes_no_circle() -> None:
    assert circle(doors()) == []


def test_the_doors_would_tell() -> None:
    assert strangers("lake", {"core", "lake", "orchestration"}, doors()) == {"orchestration"}
    assert circle({**doors(), "core": frozenset({"flow"})}) != []
    assert rooms_of(PACKAGE / "flow" / "ingest.py") == {"contracts", "core", "flow", "lake", "sources"}


def test_settings_alone_read_the_environment() -> None:
    exempt = {
        "config/settings.py",
        "local/cache_server.py",
        "local/guard.py",
        "local/clickhouse/__main__.py",
        "local/clickhouse/server.py",
    }
    exempt |= {
        "orchestration/runtime/code_server.py"
    }  # gives a forked server the environment that Dagster says
    readers = {
        below(f) for f in FILES if any(w in f.read_text() for w in ("os.environ", "os.getenv", "getenv("))
    }
    assert readers <= exempt
    assert "config/settings.py" in readers


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
