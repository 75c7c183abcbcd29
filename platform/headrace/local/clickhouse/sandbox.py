"""Confine the server's process to its own directory with Linux Landlock, whatever SQL it runs.

The engine was built as a library that trusts its host program. It lets the scalar ``file()`` read any path and
executable dictionaries run any command. Landlock takes these rights from the process, so no SQL can restore them. It
needs no privileges. On systems without it, the server runs with grants and
:mod:`headrace.local.clickhouse.access` alone, and reports that.

Reference: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # the same numbers on every architecture
_SET_NO_NEW_PRIVS = 38
_RULE_PATH_BENEATH = 1
_EXECUTE, _WRITE, _READ, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_FILE_RIGHTS = _EXECUTE | _WRITE | _READ | 1 << 14 | 1 << 15  # rights that a plain file can have
_NET_CONNECT_TCP = 1 << 1
_RIGHTS_OF_VERSION = {1: 13, 2: 14, 3: 15, 4: 15}  # 2 added refer, 3 truncate, 5 device ioctl

#: Paths that the interpreter and the engine read. Of /proc, none that names other processes or
#: this one's environment. Without ``auxv`` the engine looks for it in memory and may crash as it starts.
_SYSTEM = (
    *(
        "/usr",
        "/lib",
        "/lib64",
        "/opt",
        "/etc/ld.so.cache",
        "/etc/localtime",
        "/etc/timezone",
        "/etc/mime.types",
    ),
    *(
        "/etc/hosts",
        "/etc/host.conf",
        "/etc/resolv.conf",
        "/etc/nsswitch.conf",
        "/etc/ssl",
        "/etc/os-release",
        "/sys/devices",
    ),
    *(
        "/sys/fs/cgroup",
        "/sys/block",
        "/sys/kernel/mm",
        "/proc/meminfo",
        "/proc/stat",
        "/proc/cpuinfo",
        "/proc/self/statm",
    ),
    *("/proc/self/status", "/proc/self/stat", "/proc/self/maps", "/proc/self/io", "/proc/self/cgroup"),
    *(
        "/proc/self/auxv",
        "/proc/self/mountinfo",
        "/proc/uptime",
        "/proc/loadavg",
        "/proc/sys/vm",
        "/proc/sys/kernel",
    ),
    *("/dev/urandom", "/dev/random"),
)


def confine(directory: Path, readable: Iterable[Path] = (), network: bool = False) -> str:
    """Restrict this process, and every thread that it starts from now on, for good.

    Call this before the engine is imported: threads that already run are not restricted.

    Args:
        directory: The only tree that may be written.
        readable: More paths that may be read.
        network: Allow outgoing TCP connections.

    Returns:
        ``landlock-<version>``, or ``none`` where the system does not offer it.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux"):
        return "none"
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return "none"
    rights = (1 << _RIGHTS_OF_VERSION.get(version, 16)) - 1
    denied_network = _NET_CONNECT_TCP if version >= 4 and not network else 0
    attributes = struct.pack("=QQ", rights, denied_network)[: 16 if version >= 4 else 8]
    ruleset = libc.syscall(_CREATE_RULESET, attributes, len(attributes), 0)
    if ruleset < 0:
        return "none"
    try:
        _allow(libc, ruleset, directory, rights & ~_EXECUTE)
        _allow(libc, ruleset, Path(os.devnull), rights & (_READ | _WRITE))
        for path in (*map(Path, _SYSTEM), Path(sys.prefix), Path(sys.base_prefix), *readable):
            _allow(libc, ruleset, path, _READ | _READ_DIR)
        if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.syscall(_RESTRICT_SELF, ruleset, 0):
            return "none"
    finally:
        os.close(ruleset)
    return f"landlock-{version}"


def _allow(libc: ctypes.CDLL, ruleset: int, path: Path, rights: int) -> None:
    """Grant ``rights`` on ``path`` and below. A missing path needs no rule."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, descriptor)
        if libc.syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0):
            raise OSError(ctypes.get_errno(), f"landlock refuses a rule for {path}")
    finally:
        os.close(descriptor)
