"""Probe services with one cheap request each, without importing a client library.

A probe raises OSError when nothing listens or the answer takes more than a second. ``Supervisor`` takes that as "not
ready".
"""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Callable

from headrace.local import processes
from headrace.local.processes import LOOPBACK
from headrace.local.service import Service, ServiceFailed

_SECONDS = 1.0
_ANSWER_BYTES = 10  # length, correlation id and error code
_API_VERSIONS = 18  # https://kafka.apache.org/protocol#The_Messages_ApiVersions


def http_ok(port: int, path: str) -> bool:
    """Tell whether a GET on loopback answers 200."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    except http.client.HTTPException:
        return False
    finally:
        connection.close()


def kafka_ok(port: int) -> bool:
    """Tell whether a Kafka broker on loopback answers an ApiVersions request."""
    correlation = 20_260
    request = struct.pack(">hhih", _API_VERSIONS, 0, correlation, -1)  # -1: no client id
    with socket.create_connection((LOOPBACK, port), _SECONDS) as connection:
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = b""
        while len(answer) < _ANSWER_BYTES:
            chunk = connection.recv(4096)
            if not chunk:
                return False
            answer += chunk
    _, echoed, error = struct.unpack_from(">iih", answer)
    return bool(echoed == correlation and error == 0)


def redis_ok(port: int, password: str) -> bool:
    """Tell whether a server of the Redis protocol on loopback takes the password and answers a PING."""
    lines = [f"AUTH {password}", "PING"] if password else ["PING"]
    with socket.create_connection((LOOPBACK, port), _SECONDS) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        answer = b""
        while b"+PONG\r\n" not in answer:
            chunk = connection.recv(4096)
            answer += chunk
            if not chunk or answer.startswith(b"-"):
                return False
    return True


def answers(probe: Callable[[], bool] | None) -> bool:
    """Tell whether a probe, if there is one, says yes."""
    try:
        return probe is None or probe()
    except OSError:
        return False


def listens(service: Service, guard: int) -> bool:
    """Tell whether a service's own process listens on its port.

    Args:
        service: The service.
        guard: Process id of its guard.

    Raises:
        ServiceFailed: It listens beyond loopback.
    """
    if service.port is None:
        return True
    sockets = processes.listening(guard)
    if sockets is None:
        return True  # the system denies access, but the probe answers and the process lives
    if exposed := sorted(address for address, _ in sockets if not processes.is_loopback(address)):
        raise ServiceFailed(service, f"listens on {', '.join(exposed)} and not only on loopback: refused")
    return any(port == service.port for _, port in sockets)
