"""The source that CONTRIBUTING.md adds passes the suite of sources, as it is written there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
#: The tests of the suite that every source has to pass, and the two of the document itself.
LEAST = 8


def blocks() -> list[str]:
    """Python of the document, in its order."""
    return re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)


def installed(folder: Path) -> Path:
    """Create both files in a package and a folder of tests that are this checkout's otherwise; gives the test."""
    adapter, test = blocks()
    package, tests = folder / "platform" / "headrace", folder / "tests"
    for below, mirror in ((package, ROOT / "platform" / "headrace"), (tests, ROOT / "tests")):
        below.mkdir(parents=True)
        for entry in mirror.iterdir():
            if entry.name not in {"sources", "__pycache__"}:
                (below / entry.name).symlink_to(entry)
        (below / "sources").mkdir()
        for entry in (mirror / "sources").iterdir():
            (below / "sources" / entry.name).symlink_to(entry)
    (package / "sources" / "outbox.py").write_text(adapter)
    (tests / "sources" / "test_outbox.py").write_text(test)
    (folder / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    return tests / "sources" / "test_outbox.py"


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": str(folder / "platform")}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=env, capture_output=True, text=True, check=False,
        timeout=250,
    )  # fmt: skip


@pytest.mark.long
def test_the_source_that_the_document_adds_passes_the_suite_of_sources(tmp_path: Path) -> None:
    test = installed(tmp_path)
    done = run(tmp_path, "pytest", "-n", "0", "-p", "no:cacheprovider", str(test))
    said = re.search(r"(\d+) passed", done.stdout)
    assert done.returncode == 0 and said, done.stdout[-5_000:] + done.stderr[-2_000:]
    assert int(said[1]) >= LEAST, done.stdout


@pytest.mark.long
def test_a_source_that_loses_a_message_fails_the_suite(tmp_path: Path) -> None:
    """The negative control of the one above."""
    test = installed(tmp_path)
    adapter = tmp_path / "platform" / "headrace" / "sources" / "outbox.py"
    right = adapter.read_text()
    wrong = right.replace("ids[-1] + 1", "ids[-1] + 2")
    assert wrong != right
    adapter.write_text(wrong)
    done = run(tmp_path, "pytest", "-n", "0", "-p", "no:cacheprovider", str(test))
    assert done.returncode == 1, done.stdout
    assert "test_a_stream_lands_from_it_exactly_once" in done.stdout


@pytest.mark.long
def test_the_code_of_the_document_is_clean(tmp_path: Path) -> None:
    test = installed(tmp_path)
    adapter = tmp_path / "platform" / "headrace" / "sources" / "outbox.py"
    for command in (("ruff", "check"), ("ruff", "format", "--check")):
        done = run(tmp_path, *command, str(adapter), str(test))
        assert done.returncode == 0, done.stdout + done.stderr
    cache = str(ROOT / ".mypy_cache" / "contributing")  # half a minute without one
    done = run(
        tmp_path, "mypy", "--cache-dir", cache, "--follow-imports=silent", "-m", "headrace.sources.outbox"
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_file_that_the_document_names_exists() -> None:
    named = set(re.findall(r"`((?:platform|tests|docs)/[\w/.]+)`", TEXT))
    added = {"platform/headrace/sources/outbox.py", "tests/sources/test_outbox.py"}
    assert len(named) > len(added)
    assert [name for name in sorted(named - added) if not (ROOT / name).exists()] == []
