"""Call Metabase's REST API with an API key.

Bodies are closed there, and ``null`` is not the same as a key that is missing. So what is sent is written by hand for
each route, in the modules that call this one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import urllib3

from headrace.core.errors import Fatal, Retriable

#: The first release whose ClickHouse driver is built in.
OLDEST = 54
_TIMEOUT = urllib3.Timeout(connect=10, read=120)
_VERSION = re.compile(r"v?[01]\.(\d+)")


class Refused(Fatal):
    """Metabase refuses a request.

    Attributes:
        status: HTTP status.
    """

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Access:
    """Where Metabase is, and as whom to call it.

    Attributes:
        url: Its address.
        key: API key.
    """

    url: str
    key: str = field(repr=False)


class Client:
    """Calls Metabase.

    Attributes:
        writes: Requests so far that change something.
    """

    def __init__(self, access: Access) -> None:
        self._access = access
        self._pool = urllib3.PoolManager(timeout=_TIMEOUT, retries=False)
        self.writes = 0

    def check(self) -> str:
        """Check that Metabase answers, is new enough, and takes the key for an administrator's.

        Returns:
            Its version, such as ``v0.54.3``.

        Raises:
            Fatal: It is something else, too old, or refuses the key.
            Retriable: It does not answer.
        """
        about = self.get("/api/session/properties")
        tag = str((about.get("version") or {}).get("tag", "")) if isinstance(about, dict) else ""
        found = _VERSION.match(tag)
        if not found:
            raise Fatal(
                f"{self._access.url} does not answer as Metabase does (version {tag or 'missing'!r}); set"
                " HEADRACE_METABASE_URL to the address at which people open it"
            )
        if int(found[1]) < OLDEST:
            raise Fatal(
                f"Metabase at {self._access.url} is {tag}; its ClickHouse driver is built in since v0.{OLDEST}: upgrade"
            )
        if not self.get("/api/user/current").get("is_superuser"):
            raise Fatal(
                f"the API key of HEADRACE_METABASE_API_KEY is not of the group Administrators of {self._access.url};"
                " make one there: Admin settings, Authentication, API keys"
            )
        return tag

    def get(self, path: str, **query: str) -> Any:
        """Return what is there."""
        return self._asked("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Make something, and return it."""
        self.writes += 1
        return self._asked("POST", path, body or {})

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """Change something, and return it."""
        self.writes += 1
        return self._asked("PUT", path, body)

    def listed(self, path: str, **query: str) -> Iterator[dict[str, Any]]:
        """Yield what a route lists: an array, or an object whose ``data`` is one."""
        found = self.get(path, **query)
        for one in found.get("data", ()) if isinstance(found, dict) else found:
            if isinstance(one, dict):
                yield one

    def _asked(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> Any:
        url = self._access.url + path
        headers = {"x-api-key": self._access.key, "accept": "application/json"}
        try:
            if body is None:
                told = self._pool.request(method, url, headers=headers, fields=dict(query or {}))
            else:
                headers["content-type"] = "application/json"
                told = self._pool.request(method, url, headers=headers, body=json.dumps(body).encode())
        except urllib3.exceptions.HTTPError as error:
            raise Retriable(
                f"Metabase at {self._access.url} does not answer; is it up, and is HEADRACE_METABASE_URL right?"
                f" ({_short(str(error))})"
            ) from error
        if told.status >= 400:
            raise self._refusal(method, path, told.status, told.data)
        if not told.data or told.status == 204:
            return None
        try:
            return json.loads(told.data)
        except ValueError:
            raise Fatal(
                f"{self._access.url} does not answer as Metabase does: {path} is no JSON; set HEADRACE_METABASE_URL to"
                " the address at which people open it"
            ) from None

    def _refusal(self, method: str, path: str, status: int, said: bytes) -> Exception:
        text = _short(said.decode("utf-8", "replace"))
        if status == 401:
            return Refused(
                f"Metabase at {self._access.url} does not know the API key of HEADRACE_METABASE_API_KEY; make one"
                " there: Admin settings, Authentication, API keys",
                status,
            )
        if status == 403:
            return Refused(
                f"Metabase at {self._access.url} does not let the API key {method} {path}: give it the group"
                f" Administrators ({text})",
                status,
            )
        if status in (429, 502, 503, 504):
            return Retriable(f"Metabase at {self._access.url} is busy or starting ({status}); try again soon")
        return Refused(f"Metabase refuses {method} {path} with {status}: {text}", status)


def _short(text: str) -> str:
    return " ".join(text.split())[:300]
