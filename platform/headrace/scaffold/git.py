"""Begin a git repository with a first commit, where git is at hand and nothing is there yet."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the repository.

    Attributes:
        committed: Whether there is a new repository with a first commit.
        said: What happened or why not, and the next step; empty if there is nothing to say.
    """

    committed: bool
    said: str


NOTHING = Outcome(False, "")


def begin(root: Path, files: Sequence[str], message: str) -> Outcome:
    """Make a repository of a folder and commit its files, unless it is in one already.

    Nothing of git's configuration is changed: without a name and an address of a person, the commit is left to them.
    """
    if shutil.which("git") is None:
        return Outcome(False, "there is no git here, so this is no repository yet")
    inside = _git(root, "rev-parse", "--show-toplevel")
    if inside.returncode == 0:
        return Outcome(False, f"in the repository {inside.stdout.strip()}: commit it there")
    began = _git(root, "init", "--quiet", "--initial-branch=main")
    if began.returncode:
        return Outcome(False, f"git cannot make a repository: {_reason(began)}")
    done = _git(root, "add", "--", *files)
    if not done.returncode:
        done = _git(root, "commit", "--quiet", "--message", message)
    if done.returncode:
        return Outcome(False, f"a new git repository, without a commit: {_reason(done)}")
    return Outcome(True, "a git repository with a first commit")


def _git(root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(arguments, 1, "", f"it did not end within {_SECONDS:g} s")


def _reason(done: subprocess.CompletedProcess[str]) -> str:
    """Return what git said last: `fatal: unable to auto-detect email address` comes after a page of advice."""
    lines = [line.strip() for line in (done.stderr + done.stdout).splitlines() if line.strip()]
    return lines[-1].removeprefix("fatal: ") if lines else f"git ended with status {done.returncode}"
