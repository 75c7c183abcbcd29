"""Every command of the README does what it says there, in a checkout and a home of its own."""

from __future__ import annotations

import gzip
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from builders import eventually
from staying import UI, staying

pytestmark = pytest.mark.timeout(1_800)

ROOT = Path(__file__).parents[1]
#: This runs in the first, and ``demo/test_demo.py`` runs the second.
LEFT_OUT = {"make test", "make demo"}
#: Commands that run until they are stopped: what they print when they are ready, with the address of the UI.
UNTIL_STOPPED = {
    "make up": UI,
    'DAGSTER_HOME="$PWD/dagster_home" .venv/bin/dagster dev': r"Serving dagster-webserver on (http://\S+)",
}
#: Exit statuses besides 0 that are an answer.
ANSWERS = {".venv/bin/headrace status": {1}}
LOG_LINE = '203.0.113.9 - - [02/Jan/2026:03:04:05 +0000] "GET /pricing HTTP/1.1" 200 512 "-" "Mozilla/5.0"\n'
ASSETS = "query Assets { assetNodes { assetKey { path } } }"


def blocks(text: str) -> list[list[str]]:
    """Commands of each code block that names no language, without their comments."""
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    return [
        [command for line in block.splitlines() if (command := re.sub(r"\s+#.*", "", line).strip())]
        for language, block in fences
        if not language
    ]


BLOCKS = blocks((ROOT / "README.md").read_text())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout that shares everything with this one but what Dagster writes; it is installed already."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for entry in ROOT.iterdir():
        if entry.name not in {"dagster_home", ".headrace", ".git", ".venv"}:
            (folder / entry.name).symlink_to(entry)
    (folder / ".venv").mkdir()
    (folder / ".venv" / "bin").symlink_to(Path(sys.executable).parent)
    (folder / ".venv" / ".installed").touch()
    (folder / "dagster_home").mkdir()
    config = (ROOT / "dagster_home" / "dagster.yaml").read_text()
    (folder / "dagster_home" / "dagster.yaml").write_text(config)
    with gzip.open(folder / "access.log.gz", "wt") as log:
        log.write(LOG_LINE * 3)
    return folder


@pytest.fixture
def environment(tmp_path: Path, checkout: Path) -> Iterator[dict[str, str]]:
    clean = {
        n: v for n, v in os.environ.items() if not n.startswith(("HEADRACE_", "DAGSTER_", "DBT_", "AWS_"))
    }
    env = {**clean, "HEADRACE_HOME": str(tmp_path / "home"), "COLUMNS": "200", "PYTHONUNBUFFERED": "1"}
    yield env
    subprocess.run(
        [".venv/bin/headrace", "stack", "down"], cwd=checkout, env=env, capture_output=True, check=False
    )


def finished(command: str, checkout: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command], cwd=checkout, env=env, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=900, check=False,
    )  # fmt: skip


def succeed(command: str, checkout: Path, env: dict[str, str], within: float) -> None:
    """Run a command until it ends well; what needs data waits for the first of it."""
    said = ""

    def done() -> bool:
        nonlocal said
        found = finished(command, checkout, env)
        said = f"{command}: {found.returncode}\n{found.stdout[-3000:]}{found.stderr[-3000:]}"
        return found.returncode in {0} | ANSWERS.get(command, set())

    try:
        eventually(done, within, command)
    except AssertionError:
        raise AssertionError(said) from None


def assets(ui: str) -> set[str]:
    try:
        answer = requests.post(f"{ui}/graphql", json={"query": ASSETS}, timeout=240).json()
    except (requests.RequestException, ValueError):
        return set()
    return {"/".join(node["assetKey"]["path"]) for node in answer["data"]["assetNodes"]}


def test_commands_are_found_without_their_comments_and_only_in_blocks_without_a_language() -> None:
    text = "```\nmake up   # for ever\n\nx\n```\n`make no`\n```python\nno\n```\n```\ny\n```\n"
    assert blocks(text)[0][0] == "make up"
    assert [len(block) for block in blocks(text)] == [2, 1]
    found = {command for block in BLOCKS for command in block}
    assert found >= LEFT_OUT | set(UNTIL_STOPPED) | set(ANSWERS)
    assert len(found) >= 9


@pytest.mark.long
@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if {*block} - LEFT_OUT], ids=lambda block: str(block[0])
)
def test_a_block_of_the_readme_works_as_it_is_written(
    block: list[str], checkout: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    started = [command for command in block if command in UNTIL_STOPPED]
    assert len(started) <= 1, "the rest of a block is for another terminal"

    def run(commands: list[str]) -> None:
        for command in commands:
            if command not in LEFT_OUT:
                succeed(command, checkout, environment, within=300 if started else 1)

    if not started:
        run(block)
        return
    at = block.index(started[0])
    run(block[:at])
    command = ["bash", "-c", started[0]]
    with staying(command, checkout, environment, tmp_path / "output.log", UNTIL_STOPPED[started[0]]) as ui:
        eventually(lambda: {"lake/events", "marts/event_metrics"} <= assets(ui), 180, "the assets")
        run(block[at + 1 :])
