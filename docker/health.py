"""Tell whether what a container runs answers; exit status 0 for yes.

Takes whom to ask: an ``http://`` address that answers 2xx, or ``tcp:PORT`` on which something listens. Without, the
main process must be there. Imports next to nothing: it runs every few seconds in every container.
"""

import socket
import sys
import urllib.request
from pathlib import Path

SECONDS = 5.0


def main() -> str:
    """Say what is wrong; empty for nothing."""
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
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
