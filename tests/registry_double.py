"""A schema registry over loopback: the part of Confluent's REST interface that clients and serializers use, strictly.

It answers what the documentation says, refuses anything else with an error, and notes what it was asked.
https://docs.confluent.io/platform/current/schema-registry/develop/api.html
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_JSON = "application/vnd.schemaregistry.v1+json"
Answer = tuple[int, Any]


@dataclass
class RegistryDouble:
    """What the registry holds, and how it behaves.

    Attributes:
        schemas: By id, as ``GET /schemas/ids/{id}`` answers.
        subjects: Ids by subject, in the order of their versions.
        asked: Every request: method and path.
        status: Answered to everything, if it is no 200.
        authorization: The header that each request must have; empty for none.
        body: Answered to everything, instead of JSON; empty for none.
    """

    schemas: dict[int, dict[str, Any]] = field(default_factory=dict)
    subjects: dict[str, list[int]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    status: int = 200
    authorization: str = ""
    body: bytes = b""
    url: str = ""

    def add(
        self, text: str, kind: str = "AVRO", subject: str = "s", references: Any = (), id: int | None = None
    ) -> int:
        """Register a schema; the same one has the same id, in whatever subject."""
        schema: dict[str, Any] = {"schema": text}
        if kind != "AVRO":
            schema["schemaType"] = kind
        if references:
            schema["references"] = [
                dict(zip(("name", "subject", "version"), one, strict=True)) for one in references
            ]
        known = [number for number, one in self.schemas.items() if one == schema]
        number = known[0] if known else id or max(self.schemas, default=0) + 1
        self.schemas[number] = schema
        versions = self.subjects.setdefault(subject, [])
        if number not in versions:
            versions.append(number)
        return number

    def answer(self, method: str, path: str, sent: Any) -> Answer:
        """Answer a request as the documentation says."""
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        match method, parts:
            case "GET", ["schemas", "ids", id]:
                found = self.schemas.get(int(id))
                return (200, found) if found else (404, _error(40403, f"Schema {id} not found"))
            case "GET", ["subjects", subject, "versions", version]:
                return self._version(subject, version)
            case "POST", ["subjects", subject, "versions"]:
                references = [(r["name"], r["subject"], r["version"]) for r in sent.get("references") or ()]
                number = self.add(sent["schema"], sent.get("schemaType", "AVRO"), subject, references)
                return 200, {"id": number, **self.schemas[number]}
            case "POST", ["subjects", subject]:
                for n, number in enumerate(self.subjects.get(subject, ()), 1):
                    if self.schemas[number]["schema"] == sent["schema"]:
                        return 200, {"subject": subject, "version": n, "id": number, **self.schemas[number]}
                return 404, _error(40403, "Schema not found")
        return 405, _error(405, f"{method} {path} is none that clients of a registry send")

    def _version(self, subject: str, version: str) -> Answer:
        versions = self.subjects.get(subject)
        if versions is None:
            return 404, _error(40401, f"Subject '{subject}' not found.")
        n = len(versions) if version == "latest" else int(version)
        if not 0 < n <= len(versions):
            return 404, _error(40402, f"Version {version} not found.")
        number = versions[n - 1]
        return 200, {"subject": subject, "version": n, "id": number, **self.schemas[number]}


def _error(code: int, message: str) -> dict[str, Any]:
    return {"error_code": code, "message": message}


def basic(user: str, password: str) -> str:
    """The header of basic authentication."""
    return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"


@contextmanager
def registry_double(port: int = 0) -> Iterator[RegistryDouble]:
    """A registry on a loopback port."""
    double = RegistryDouble()

    class Handler(BaseHTTPRequestHandler):
        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length)) if length else None
            double.asked.append(f"{self.command} {self.path}")
            status, answer = double.status, _error(double.status, "as the test says")
            if double.authorization and self.headers.get("Authorization") != double.authorization:
                status, answer = 401, _error(401, "Unauthorized")
            elif status == 200 and not double.body:
                status, answer = double.answer(self.command, self.path, sent)
            body = double.body or json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if double.body else _JSON)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    double.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield double
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def framed(id: int, body: bytes) -> bytes:
    """A message in Confluent's wire format."""
    return b"\0" + id.to_bytes(4, "big") + body
