"""The documents lead somewhere: links, images, the index of decisions, the navigation of the site."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

ROOT = Path(__file__).parents[1]
ZENSICAL = ROOT / ".tools" / "docs" / "bin" / "zensical"
DOCS = ROOT / "docs"
ADRS = sorted((DOCS / "adr").glob("[0-9]*.md"))
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md")]
HEAD = re.compile(
    r"# (?P<number>\d+)\. (?P<title>.+)\n\nDate: (?P<date>\d{4}-\d\d-\d\d)\. Status: (?P<status>.+)\.\n"
)
STATUS = re.compile(
    r"(proposed|accepted|superseded (in part )?by \[ADR (?P<by>\d+)\]\((?P<file>[\w-]+\.md)\)[^.]*)"
)


def targets(text: str) -> list[str]:
    """Relative targets of links and images."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)", prose)
    return [target for target in found if not re.match(r"[a-z]+:|#", target)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_and_image_is_there(page: Path) -> None:
    broken = [t for t in targets(page.read_text()) if not (page.parent / t.partition("#")[0]).exists()]
    assert broken == []


def test_a_broken_link_is_found() -> None:
    assert targets("[a](b.md#c) ![d](e.png) [f](https://g) [h](#i)\n```\n[j](k)\n```\n") == [
        "b.md#c",
        "e.png",
    ]


@pytest.mark.parametrize("adr", ADRS, ids=lambda adr: adr.stem)
def test_a_decision_has_number_title_date_and_status(adr: Path) -> None:
    head = HEAD.match(adr.read_text())
    assert head, (
        f"{adr.name} begins with '# N. Title', an empty line and 'Date: YYYY-MM-DD. Status: accepted.'"
    )
    assert int(head["number"]) == int(adr.name[:4])
    status = STATUS.fullmatch(head["status"])
    assert status, head["status"]
    if status["by"]:
        assert status["file"].startswith(f"{int(status['by']):04d}-")


def test_the_index_lists_every_decision_as_it_is() -> None:
    wanted = []
    for adr in ADRS:
        head = HEAD.match(adr.read_text())
        assert head
        wanted.append(
            f"| [{head['number']}]({adr.name}) | {head['title']} | {head['date']} | {head['status']} |"
        )
    index = (DOCS / "adr" / "README.md").read_text()
    assert [line for line in index.splitlines() if re.match(r"\| \[\d", line)] == wanted


def test_the_navigation_lists_every_page() -> None:
    named = re.findall(
        r"^\s*- (?:[^:\n]+: )?([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), flags=re.MULTILINE
    )
    assert sorted(named) == sorted(page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md"))


def site(folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a copy of the documents."""
    shutil.copytree(DOCS, folder / "docs", dirs_exist_ok=True)
    for name in ("mkdocs.yml", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md"):
        shutil.copy(ROOT / name, folder / name)
    with (folder / "docs" / "models.md").open("a") as page:
        page.write("\n[nowhere](operations.md#no-such-heading)\n")
    command = [str(ZENSICAL), "build", "--strict"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.skipif(not ZENSICAL.exists(), reason="make docs installs what builds the site")
def test_an_anchor_that_leads_nowhere_fails_the_build_of_the_site(tmp_path: Path) -> None:
    """That the documents as they are build is `make check`'s own step."""
    done = site(tmp_path)
    assert done.returncode != 0
    assert "anchor does not exist" in done.stdout + done.stderr


def test_the_hooks_call_what_is_installed() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    hooks = [hook for repo in config["repos"] for hook in repo["hooks"]]
    assert {repo["repo"] for repo in config["repos"]} == {"local"}, "nothing is fetched"
    called = {Path(hook["entry"].split()[0]).name for hook in hooks} - {"sh"}
    assert called == {"ruff", "mypy", "sqlfluff"}
    assert [tool for tool in called if not (Path(sys.executable).parent / tool).exists()] == []
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)


def test_the_workflow_runs_every_python_that_the_package_allows() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    allowed = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text())
    assert allowed
    assert matrix == [f"3.{minor}" for minor in range(int(allowed[1]), int(allowed[2]))]
