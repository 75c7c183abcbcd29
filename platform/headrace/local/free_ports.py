"""Start services on ports that are free now, and again on others if somebody else was faster."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection

from headrace.core.errors import Fatal
from headrace.local import processes
from headrace.local.service import ServiceFailed
from headrace.local.supervisor import Supervisor

_PORTS_TRIED = 5  # starts, each on other ports
_IN_USE = re.compile(r"addr(ess)?\s*(is\s*|already\s*)*in\s*use|port \d+ .*is taken", re.IGNORECASE)


def start_on_free_ports(
    make: Callable[[Collection[int]], Supervisor], asked: Collection[str], report: Callable[[str], None]
) -> Supervisor:
    """Start services whose ports were free when they were picked.

    Seconds pass until a service binds its port, and another process may be faster. Everything is then started again
    on other ports.

    Args:
        make: Makes the services. It avoids the ports that it is given: those were lost before.
        asked: Names of services that must have the very port they were given.
        report: Receives a line for each port that was lost.

    Raises:
        ServiceFailed: A service does not become ready, for another reason.
        Fatal: Another process has a port that was asked for, or five starts lost one.
    """
    lost: set[int] = set()
    while True:
        supervisor = make(lost)
        try:
            supervisor.start()
        except ServiceFailed as failure:
            port = failure.port
            if port is None or (not _IN_USE.search(failure.tail) and processes.port_is_free(port)):
                raise
            if failure.service in asked:
                raise processes.taken(port, failure.service) from failure
            lost.add(port)
            if len(lost) >= _PORTS_TRIED:
                raise Fatal(f"no port stays free for the {failure.service}; try again") from failure
            report(f"port {port} was taken meanwhile; trying another one for the {failure.service}")
        else:
            return supervisor
