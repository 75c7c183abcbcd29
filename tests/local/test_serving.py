"""A server of numbers that hangs is noticed, which is what starts it again."""

from __future__ import annotations

import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from headrace.local import probes
from headrace.local.serving import serving_service


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/healthz" else 503)  # away is not dead
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_one_that_hangs_is_told_from_one_whose_warehouse_is_away(tmp_path: Path) -> None:
    with HTTPServer(("127.0.0.1", 0), _Answers) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        service = serving_service(tmp_path, server.server_port, {}, "clickhouse")
        assert service.alive is not None
        assert probes.answers(service.alive) and not probes.answers(service.ready)
        server.shutdown()
        serving.join()
    with socket.create_server(("127.0.0.1", 0)) as hanging:
        service = serving_service(tmp_path, hanging.getsockname()[1], {}, "clickhouse")
        assert service.alive is not None and not probes.answers(service.alive)
