"""Who sends a body too slowly is refused, and holds nobody up."""

from __future__ import annotations

import socket
from pathlib import Path

from builders import event
from collector.server import Server, collector


def begun(server: Server, said: str, part: bytes) -> socket.socket:
    """Send the head of a request and a part of its body."""
    host, port = server.url.removeprefix("http://").split(":")
    found = socket.create_connection((host, int(port)), timeout=60)
    head = f"POST /v1/analytics HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {server.key}\r\n{said}\r\n\r\n"
    found.sendall(head.encode() + part)
    return found


def test_a_slow_body_is_refused_and_nothing_of_it_is_taken(tmp_path: Path) -> None:
    whole = event(event_id="slow")
    with collector(tmp_path / "home", HEADRACE_COLLECTOR_BODY_SECONDS="1") as server:
        known = begun(server, f"content-length: {len(whole)}", whole[:10])
        chunked = begun(server, "transfer-encoding: chunked", b"a\r\n" + whole[:10] + b"\r\n")
        assert server.post("/v1/analytics", event(event_id="quick"))[0] == 202
        for one in (known, chunked):
            with one:
                assert one.recv(65_536).startswith(b"HTTP/1.1 408 ")
        with begun(server, f"content-length: {len(whole)}", whole) as control:
            assert control.recv(65_536).startswith(b"HTTP/1.1 202 ")
        assert server.stop() == 0, server.said.read_text()
        assert [one["event_id"] for one in server.records()] == ["quick", "slow"]
