"""Describe the contracts of a git revision: of the project, the pipelines or the checkout in which one stands.

The revision's files are written to a temporary folder (``git archive``) and loaded there in a process of its own, with
the pipelines, ``headrace.toml`` and, in a checkout of Headrace, the code of that revision. The folder with the work in
progress is not touched.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headrace.core.errors import Fatal

if TYPE_CHECKING:
    from headrace.config.settings import Settings

#: Most seconds for git and for loading all pipelines of a revision.
_SECONDS = 300.0
#: Variables that say where a person's own files are; the revision has others.
_PLACES = ("HEADRACE_PROJECT_DIR", "HEADRACE_PIPELINES", "HEADRACE_HOME", "PYTHONPATH")


@dataclass(frozen=True, slots=True)
class Revision:
    """The contracts of a revision.

    Attributes:
        commit: Its short id.
        contracts: Descriptions by stream.
        broken: Why pipeline files did not load, by file name.
    """

    commit: str
    contracts: dict[str, dict[str, Any]]
    broken: dict[str, str]


def contracts_at(settings: Settings, revision: str) -> Revision:
    """Describe the contracts of a revision.

    Args:
        settings: Settings of this installation, which say where one stands.
        revision: As git knows it: a branch, a tag, ``HEAD~1``, a commit.

    Raises:
        Fatal: There is no repository or no such revision, or its contracts do not load.
    """
    root = _root(settings)
    top = Path(_git(root, "rev-parse", "--show-toplevel", failed=f"{root} is in no git repository"))
    unknown = f"git knows no revision {revision!r} in {top}; see 'git log', and fetch it if CI checks out one commit"
    commit = _git(
        top, "rev-parse", "--verify", "--short", "--end-of-options", f"{revision}^{{commit}}", failed=unknown
    )
    with tempfile.TemporaryDirectory(prefix="headrace-revision-") as folder:
        files, home = Path(folder, "files"), Path(folder, "home")
        home.mkdir()
        _export(top, commit, _wanted(settings, root, top), files)
        found = _described(
            settings, _environment(settings, top, files, home), f"revision {revision} ({commit})"
        )
    return Revision(commit, found["contracts"], found["broken"])


def _root(settings: Settings) -> Path:
    """Return where one stands: the project, else the folder of pipelines, else the checkout."""
    from headrace.config.shipped import checkout

    root = settings.project.root if settings.project else settings.pipelines or checkout()
    if root is None:
        raise Fatal(
            "there is no headrace.toml here or above, and no HEADRACE_PIPELINES, so no revision to compare with"
        )
    return root.resolve()


def _wanted(settings: Settings, root: Path, top: Path) -> list[str]:
    """List the folders to write: that of the project, and pipelines elsewhere in its repository."""
    folders = [root, *(one.resolve() for one in settings.pipeline_folders)]
    inside = [str(one.relative_to(top)) for one in folders if one.is_relative_to(top)]
    return [] if "." in inside else sorted({*inside})


def _export(top: Path, commit: str, folders: list[str], to: Path) -> None:
    arguments = ["archive", "--format=tar", commit, *(["--", *folders] if folders else [])]
    done = _run_git(top, arguments)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["git archive failed"]
        raise Fatal(f"revision {commit} cannot be written out: {said[0].removeprefix('fatal: ')}")
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(to, filter="data")


def _environment(settings: Settings, top: Path, files: Path, home: Path) -> dict[str, str]:
    """Return the environment in which the revision's pipelines load: as here, with its own places."""
    from headrace.config.settings import child_environment
    from headrace.config.shipped import checkout

    found = child_environment()
    named = found.get("HEADRACE_PIPELINES")
    env = {name: value for name, value in found.items() if name not in _PLACES} | {"HEADRACE_HOME": str(home)}
    own = checkout()
    code = files / own.resolve().relative_to(top) if own and own.resolve().is_relative_to(top) else own
    if code is not None:
        env["PYTHONPATH"] = str(code / "platform")
    for name, folder in (
        ("HEADRACE_PROJECT_DIR", settings.project.root if settings.project else None),
        ("HEADRACE_PIPELINES", Path(named).expanduser().resolve() if named else None),
    ):
        if folder is not None:
            inside = folder.resolve().is_relative_to(top)
            env[name] = str(files / folder.resolve().relative_to(top) if inside else folder)
    return env


def _described(settings: Settings, env: dict[str, str], of: str) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-m", __name__, *settings.builtin_streams]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, env=env, cwd=env["HEADRACE_HOME"], timeout=_SECONDS, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Fatal(f"the contracts of {of} do not load within {_SECONDS:g} s") from None
    if f"No module named {__name__}" in done.stderr:
        raise Fatal(
            f"the contracts of {of} do not load: its Headrace does not describe contracts yet; take a later one"
        )
    try:
        return dict(json.loads(done.stdout))
    except ValueError:
        said = done.stderr.strip().splitlines()[-1:] or [f"it ended with status {done.returncode}"]
        raise Fatal(f"the contracts of {of} do not load: {said[0]}") from None


def _git(folder: Path, *arguments: str, failed: str) -> str:
    done = _run_git(folder, list(arguments))
    if done.returncode:
        raise Fatal(failed)
    return done.stdout.decode().strip()


def _run_git(folder: Path, arguments: list[str]) -> subprocess.CompletedProcess[bytes]:
    if shutil.which("git") is None:
        raise Fatal("there is no git here, which a revision is read with; install it")
    try:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, stdin=subprocess.DEVNULL, timeout=_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Fatal(f"git {arguments[0]} in {folder} did not end within {_SECONDS:g} s") from None


def _main(builtin: list[str]) -> None:
    """Print the descriptions of the pipelines that the environment names, as JSON."""
    from headrace.config.settings import settings
    from headrace.contracts.growth.describe import described
    from headrace.pipelines import discover

    config = settings()
    found = discover(*config.pipeline_folders, builtin=builtin, seconds=config.pipeline_seconds)
    contracts = {name: described(one.contract) for name, one in found.pipelines.items()}
    print(json.dumps({"contracts": contracts, "broken": found.broken}))


if __name__ == "__main__":
    try:
        _main(sys.argv[1:])
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {' '.join(str(error).split())}")
