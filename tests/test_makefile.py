"""What ``make install`` says while it takes minutes."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_install_says_what_it_does_before_it_does_it() -> None:
    command = ["make", "--dry-run", "--what-if=uv.lock", "install"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    said = (
        "installing the locked packages",
        " sync --frozen",
        "compiling the decoder",
        "headrace.local.prepare",
        "installed; try",
    )
    place = {what: next(n for n, line in enumerate(lines) if what in line) for what in said}
    assert list(place.values()) == sorted(place.values())
    assert "--quiet" in lines[place[" sync --frozen"]], "no terminal, no progress bars"
