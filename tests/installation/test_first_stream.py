"""The page "Your first stream" does what it says, as it is written there, with an installed Headrace."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from builders import eventually
from installed import ROOT, Installation
from staying import staying

PAGE = ROOT / "docs" / "first-stream.md"
#: The command that runs until it is stopped; the rest of the page is for another terminal.
STAYS = "make up"


def blocks(text: str) -> list[tuple[str, str]]:
    """Language and content of each block, in the order of the page."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


class Reader:
    """Somebody who types what the page says, at two terminals."""

    def __init__(self, folder: Path, env: dict[str, str]) -> None:
        self.folder, self.env = folder, env

    def type(self, language: str, content: str) -> None:
        """Follow one block: run commands, write a file, or edit one."""
        first, _, rest = content.partition("\n")
        if language == "sh":
            for command in content.splitlines():
                self.run(command)
        elif language == "diff":
            file = self.folder / first.removeprefix("--- ")
            old, new = (line[1:] for line in rest.splitlines())
            assert file.read_text().count(old) == 1, f"{file} has not one {old!r}:\n{file.read_text()}"
            file.write_text(file.read_text().replace(old, new))
        else:
            file = self.folder / re.sub(r"^(#|--) ", "", first)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(rest)

    def run(self, command: str) -> str:
        """Run a command, which must succeed; ``cd`` holds for those that follow."""
        done = subprocess.run(
            ["bash", "-c", f"{command} && pwd > '{self.folder.parent}/.where'"],
            cwd=self.folder, env=self.env, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, f"{command}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
        self.folder = Path((self.folder.parent / ".where").read_text().strip())
        return done.stdout


def by_hour(file: Path) -> dict[int, int]:
    """Count the clicks of people by hour (UTC), each once, without Headrace."""
    zone, seen = ZoneInfo("Europe/Berlin"), set()
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            seen.add(tuple(row.values()))
    times = [datetime.fromisoformat(time).replace(tzinfo=zone) for time, *_, bot in seen if bot == "no"]
    return dict(Counter(at.astimezone(UTC).hour for at in times))


@pytest.mark.long
def test_a_newcomer_gets_from_an_unseen_file_to_a_chart(installation: Installation, tmp_path: Path) -> None:
    person = {
        f"GIT_{who}_{what}": "a@example.com" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
    }
    env = installation.environment({"VIRTUAL_ENV": str(installation.folder), "COLUMNS": "80", **person})
    reader = Reader(tmp_path, env)
    todo = [block for block in blocks(PAGE.read_text()) if "pip install" not in block[1]]
    at = todo.index(("sh", f"{STAYS}\n"))
    assert at >= 8, "the page has all its steps"
    for language, content in todo[:at]:
        reader.type(language, content)
    with staying(["bash", "-c", STAYS], reader.folder, env, tmp_path / "up.log"):
        commands = [
            line for language, content in todo[at + 1 :] if language == "sh" for line in content.splitlines()
        ]
        chart = next(command for command in commands if "bar(" in command)
        expected = by_hour(reader.folder / "data" / "clicks" / "clicks.csv")

        def charted() -> bool:
            command = ["bash", "-c", f"{chart} --json"]
            done = subprocess.run(
                command, cwd=reader.folder, env=env, capture_output=True, text=True, check=False
            )
            if done.returncode:
                return False
            return {row["hour"]: int(row["n"]) for row in json.loads(done.stdout)} == expected

        eventually(charted, 300, "the chart, with the numbers of an independent count")
        for command in commands:
            reader.run(command)
        assert "█" in reader.run(chart)


def test_the_readme_shows_commands_of_the_page() -> None:
    """So that they are followed, too."""
    [shown] = [content for language, content in blocks((ROOT / "README.md").read_text()) if language == "sh"]
    commands = [re.sub(r"\s+#.*", "", line) for line in shown.splitlines()]
    page = [
        line
        for language, content in blocks(PAGE.read_text())
        if language == "sh"
        for line in content.splitlines()
    ]
    assert len(commands) >= 5
    assert [command for command in commands if command not in page] == []
