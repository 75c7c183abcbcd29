"""Sockets that listen, and the processes that accept from them.

Each worker has a socket of its own on the same address, so that the system divides connections among them. All are
made by the owner, and stay open in it: connections that come while a worker is dead wait for the next one.
"""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from headrace.collector.wire import BACKLOG, no_address

#: What a worker is started with, before its own arguments.
COMMAND = [sys.executable, "-P", "-m", "headrace.collector.workers.worker"]
#: For how long to wait for an address that somebody has, and between two attempts.
_PATIENCE_SECONDS, _PAUSE_SECONDS = 3.0, 0.05


def listening(host: str, port: int, workers: int) -> list[list[socket.socket]]:
    """Listen on an address for several workers; each has one socket per address that the host name stands for.

    Raises:
        Fatal: The address cannot be had, also after a moment: workers of somebody who was killed end soon.
    """
    until = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return _listening(host, port, workers)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > until:
                raise no_address(host, port, error) from error
            time.sleep(_PAUSE_SECONDS)


def _listening(host: str, port: int, workers: int) -> list[list[socket.socket]]:
    made: list[list[socket.socket]] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        places = list(dict.fromkeys((family, address) for family, _, _, _, address in found))
        for family, address in places:  # who shares a port does not see that somebody else has it
            _bound(family, address, shared=False).close()
        for _ in range(workers):
            made.append([])
            for family, address in places:
                one = _bound(family, address, shared=True)
                made[-1].append(one)
                one.listen(BACKLOG)
    except OSError:
        close(made)
        raise
    return made


def _bound(family: int, address: object, *, shared: bool) -> socket.socket:
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind(address)  # type: ignore[arg-type]
    except OSError:
        one.close()
        raise
    return one


def close(made: Sequence[Sequence[socket.socket]]) -> None:
    """Close sockets."""
    for some in made:
        for one in some:
            one.close()


def start(connection: socket.socket, sockets: Sequence[socket.socket]) -> subprocess.Popen[bytes]:
    """Start a worker, which dies with this process; call it in the main thread."""
    numbers = [connection.fileno(), *(one.fileno() for one in sockets)]
    return subprocess.Popen(
        [*COMMAND, str(os.getpid()), *map(str, numbers)], stdin=subprocess.DEVNULL, pass_fds=numbers
    )
