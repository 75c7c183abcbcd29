"""``make docker-test``: the compose project as a newcomer starts it, the demo in it, and its numbers.

``python -m containers.demo FOLDER SERVICES`` builds every image from what is at hand, starts the project with three
workers, runs the demo on it, and takes it down with its volumes. The exit status is the demo's. ``SERVICES`` is where
``tests/services/fetch.py`` put the jars.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from headrace.demo import run as demo

from .engine import Missing, engine, run, say

ROOT = Path(__file__).resolve().parents[2]
FILES = ("compose.yaml", "compose.local.yaml")
#: As ``headrace demo`` sets them, but for its own archive.
TUNING = {name: value for name, value in demo.TUNING.items() if name != "HEADRACE_ARCHIVE"}
JARS = ("kafka", "queue")
WORKERS = 3


def main() -> int:
    """Run all of it; returns the demo's exit status."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("services", type=Path)
    options.add_argument("--keep", action="store_true", help="leave everything running")
    asked = options.parse_args()
    with engine(asked.folder.absolute()) as env:
        own = {**env, **_prepared(asked.folder.absolute(), asked.services.absolute())}
        compose = [
            "docker",
            "compose",
            *(part for name in FILES for part in ("-f", str(ROOT / "docker" / name))),
        ]
        try:
            return _play(compose, own)
        finally:
            if asked.keep:
                print(f"DOCKER_HOST={own.get('DOCKER_HOST', '')}; Ctrl-D ends it")
                sys.stdin.read()
            _logs(compose, own, asked.folder)
            subprocess.run(
                [*compose, "--profile", "*", "down", "--volumes", "--timeout", "20"], env=own, check=False
            )


def _prepared(folder: Path, services: Path) -> dict[str, str]:
    context, tuning = folder / "services", folder / "headrace.env"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(ROOT / "docker" / "services", context)
    for name in JARS:
        if not (services / name / "complete").is_file():
            raise Missing(f"{services / name} is not complete: {_why(services / name)}")
        shutil.copytree(services / name, context / name)
    tuning.write_text("".join(f"{name}={value}\n" for name, value in TUNING.items()))
    run([str(ROOT / "docker" / "secrets.sh")])
    return {"HEADRACE_SERVICES": str(context), "HEADRACE_ENV_FILE": str(tuning)}


def _why(folder: Path) -> str:
    said = folder / "missing.txt"
    return said.read_text().strip() if said.is_file() else "run tests/services/fetch.py"


def _play(compose: list[str], env: Mapping[str, str]) -> int:
    began = time.monotonic()
    _step("images are built", [*compose, "--profile", "demo", "build", "--quiet"], env, began)
    up = ["up", "--detach", "--wait", "--wait-timeout", "600", "--scale", f"worker={WORKERS}"]
    _step(f"the project is healthy, with {WORKERS} workers", [*compose, *up], env, time.monotonic())
    began = time.monotonic()
    status = subprocess.run([*compose, "run", "--rm", "demo"], env=env, check=False).returncode
    say(f"the demo ended with {status} after {time.monotonic() - began:.0f} s")
    return status


def _step(what: str, command: list[str], env: Mapping[str, str], began: float) -> None:
    done = subprocess.run(command, env=env, check=False)
    if done.returncode:
        raise Missing(f"'{' '.join(command[-4:])}' ended with {done.returncode}")
    say(f"{what} after {time.monotonic() - began:.0f} s")


def _logs(compose: list[str], env: Mapping[str, str], folder: Path) -> None:
    with (folder / "compose.log").open("wb") as log:
        subprocess.run([*compose, "logs", "--no-color"], env=env, stdout=log, stderr=log, check=False)
    say(f"what the containers said is in {folder / 'compose.log'}")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Missing as why:
        sys.exit(f"docker-test: {why}")
