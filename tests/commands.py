"""Commands as a person types them, each a process of its own that is forked from one with the package imported.

Importing what a command needs takes longer than most commands, and tests give hundreds of them. The tests of the README
start the executable itself.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

#: What commands import once they know what they are to do.
LATER = (
    "headrace.cli",
    "headrace.health.doctor",
    "headrace.health.status",
    "headrace.repair.erase",
    "headrace.streams.stream",
    "headrace.warehouse.clickhouse",
)


def run(*arguments: str, env: Mapping[str, str], timeout: float = 280) -> subprocess.CompletedProcess[bytes]:
    """Run ``headrace`` with arguments and this environment alone, and wait for it.

    Args:
        arguments: After ``headrace``.
        env: The whole environment of the command.
        timeout: Seconds, less than a test may take; for a machine that is busy.

    Raises:
        subprocess.TimeoutExpired: It took longer, and was killed.
    """
    server = _server()
    assert server.stdin is not None and server.stdout is not None
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        order = {
            "arguments": arguments, "env": dict(env), "cwd": str(Path.cwd()), "out": str(out), "err": str(err)
        }  # fmt: skip
        server.stdin.write(json.dumps(order).encode() + b"\n")
        server.stdin.flush()
        child = int(server.stdout.readline())
        late = not select.select([server.stdout], [], [], timeout)[0]
        if late:
            os.kill(child, 9)
        status = int(server.stdout.readline())
        done = subprocess.CompletedProcess(list(arguments), status, out.read_bytes(), err.read_bytes())
    if late:
        raise subprocess.TimeoutExpired(list(arguments), timeout, done.stdout, done.stderr)
    return done


def run_text(
    *arguments: str, env: Mapping[str, str], timeout: float = 280
) -> subprocess.CompletedProcess[str]:
    """Do the same, with output as text."""
    done = run(*arguments, env=env, timeout=timeout)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@cache
def _server() -> subprocess.Popen[bytes]:
    """The process that is forked; one for each worker, until it ends."""
    # no variable of the tests' own may be read while it imports
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("HEADRACE_", "DAGSTER_"))
    }
    server = subprocess.Popen(
        [sys.executable, "-P", __file__], env=clean, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
    )
    atexit.register(server.kill)
    return server


def _serve() -> None:
    """Fork for each order on standard input; say the child's id, and its exit status once it has ended."""
    for name in LATER:
        import_module(name)
    assert threading.active_count() == 1, threading.enumerate()  # others do not live on in a fork
    gc.freeze()
    for line in sys.stdin.buffer:
        child = os.fork()
        if not child:
            _obey(json.loads(line))
            return
        os.write(1, b"%d\n" % child)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def _obey(order: dict[str, Any]) -> None:
    """Become the command."""
    os.environ.clear()
    os.environ.update(order["env"])
    os.chdir(order["cwd"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(order[name], os.O_WRONLY | os.O_CREAT, 0o600), number)
    sys.argv = ["headrace", *order["arguments"]]
    import_module("headrace.cli").main()


if __name__ == "__main__":
    _serve()
