"""Commands that run until they are stopped, as a person starts and stops them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from builders import eventually

#: What ``headrace up`` prints once it is ready.
UI = r"Dagster UI\s+(http://\S+)"


@contextmanager
def staying(
    command: Sequence[str],
    cwd: Path,
    env: Mapping[str, str],
    output: Path,
    ready: str = UI,
    within: float = 400,
) -> Iterator[str]:
    """Run a command until Ctrl-C; gives what the group of ``ready`` matched once its output has it.

    Args:
        command: Program and arguments.
        cwd: Where it is started.
        env: Its whole environment.
        output: File for what it prints.
        ready: A regular expression with one group.
        within: Seconds until then, for a machine that is busy.
    """
    with output.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=cwd, env=dict(env), stdout=log, stderr=log, start_new_session=True
        )

    def found() -> str | None:
        assert process.poll() is None, output.read_text()
        said = re.search(ready, output.read_text())
        return said[1] if said else None

    try:
        yield str(eventually(found, within, f"{ready} of {' '.join(command)}"))
    finally:
        with suppress(ProcessLookupError):  # it has ended by itself: what it said is told above
            os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(90)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
