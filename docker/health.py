"""Tell whether what a container runs answers; exit status 0 for yes.

HEADRACE_HEALTH says whom to ask, by the container's command: an ``http://`` address that answers 2xx, ``tcp:PORT`` on
which something listens, ``redis:`` for a worker, whose broker must answer. Without it, the main process must be there.
Imports next to nothing: it runs every few seconds in every container.
"""

import os
import socket
import sys
import urllib.request
from pathlib import Path

SECONDS = 5.0


def main() -> str:
    """Say what is wrong; empty for nothing."""
    asked = os.environ.get("HEADRACE_HEALTH", "")
    try:
        if asked.startswith("http://"):
            with urllib.request.urlopen(asked, timeout=SECONDS):
                return ""
        if asked.startswith("tcp:"):
            with socket.create_connection(("127.0.0.1", int(asked.removeprefix("tcp:"))), SECONDS):
                return ""
        return "" if Path("/proc/1").exists() else "nothing runs"
    except (OSError, ValueError) as error:
        return f"{asked}: {error}"


if __name__ == "__main__":
    if said := main():
        sys.exit(said)
