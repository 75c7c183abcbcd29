"""Ask the operating system about a service: its processes, their memory, its listening sockets."""

from __future__ import annotations

import ipaddress
import random
import socket
from collections.abc import Collection

import psutil

from headrace.core.errors import Fatal

LOOPBACK = "127.0.0.1"

# Below the ephemeral range of Linux (32768 up) and macOS (49152 up): an outgoing connection of some other
# process then cannot take the port between the check and the service's bind.
_PORTS = range(20_000, 32_768)


def tree(pid: int) -> list[psutil.Process]:
    """Return the process and all its descendants, parents first; empty when it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def listening(pid: int) -> set[tuple[str, int]] | None:
    """Return the addresses on which the process or a descendant accepts TCP; None if the system denies access."""
    found = set()
    for process in tree(pid):
        try:
            for connection in process.net_connections(kind="tcp"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            return None
    return found


def is_loopback(address: str) -> bool:
    """Tell whether an IP address is a loopback address."""
    ip = ipaddress.ip_address(address)
    # gRPC listens on IPv4 through an IPv6 socket: ::ffff:127.0.0.1
    mapped = ip.ipv4_mapped if isinstance(ip, ipaddress.IPv6Address) else None
    return (mapped or ip).is_loopback


def memory(pid: int) -> int:
    """Return the resident bytes of the process and its descendants. Shared pages count for each of them."""
    total = 0
    for process in tree(pid):
        try:
            total += process.memory_info().rss
        except psutil.Error:
            continue
    return total


def created(pid: int) -> float | None:
    """Return the process's start time (seconds since 1970), which tells a reused pid from the original.

    Return None when it has ended, even if its parent has not collected it: containers without an init keep zombies for
    ever.
    """
    try:
        process = psutil.Process(pid)
        return None if process.status() == psutil.STATUS_ZOMBIE else float(process.create_time())
    except psutil.Error:
        return None


def port_is_free(port: int) -> bool:
    """Tell whether a server could bind the port on loopback now. Another process may still bind it first."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # TIME_WAIT does not count as taken
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def pick_port(usual: int | None, avoid: Collection[int] = ()) -> int:
    """Return ``usual`` if it is free, else any free port below the ephemeral range.

    Args:
        usual: The port that people expect; None for a service that nobody calls by hand, so that two that start at the
            same time hardly look at the same one.
        avoid: Ports that are free and not wanted.

    Raises:
        Fatal: No port can be bound, as in a sandbox without loopback.
    """
    first: tuple[int, ...] = () if usual is None else (usual,)
    for port in (*first, *random.sample(_PORTS, 200)):
        if port not in avoid and port_is_free(port):
            return port
    raise Fatal(f"no free port on {LOOPBACK}: is the loopback interface up? Try 'headrace doctor'")


def require_free(port: int, what: str) -> None:
    """Check that nothing listens on the port.

    Raises:
        Fatal: The port is taken. The message names the process if the system tells.
    """
    if not port_is_free(port):
        raise taken(port, what)


def taken(port: int, what: str) -> Fatal:
    """Make the error of a requested port that is taken."""
    owner = owner_of(port)
    by = f" by {owner}" if owner else ""
    return Fatal(f"port {port} for the {what} is taken{by}; end that process or ask for another port")


def owner_of(port: int) -> str:
    """Name the process that listens on the port, as ``java (pid 4711)``; empty if the system does not tell."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass
    return ""
