"""Let a request in: whose read key or session it has, from where it comes, and how fast."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import math
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from headrace.collector.keys import NOBODY, Key, Keys
from headrace.collector.limits import Rates
from headrace.core.errors import HeadraceError
from headrace.serving.problem import Problem

if TYPE_CHECKING:
    from headrace.config.settings import Settings

log = logging.getLogger(__name__)

COOKIE = "headrace_session"
SESSION_SECONDS = 12 * 3_600
_LOOK_SECONDS = 1.0
_LOCAL_NAMES = ("localhost", "127.0.0.1", "[::1]", "::1")


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say about who may read.

    Attributes:
        keys: Whether a read key is asked for.
        hosts: Names by which the server may be called where no key is asked for: a page of a stranger could give its
            own name this machine's address, and read as if it were here.
        origins: Web origins whose pages may read.
        key_rate: Requests per second of a key that has no rate of its own; 0 for no limit.
        address_rate: Requests per second of an address; 0 for no limit.
        proxies: Proxies that add to ``X-Forwarded-For``.
    """

    keys: bool = True
    hosts: frozenset[str] = frozenset(_LOCAL_NAMES)
    origins: frozenset[str] = frozenset()
    key_rate: float = 0.0
    address_rate: float = 0.0
    proxies: int = 0


def policy(settings: Settings, host: str) -> Policy:
    """Return the policy of a server that listens on a host: beyond loopback, a key is always asked for."""
    named = {urlsplit(settings.serve_url).hostname} if settings.serve_url else set()
    return Policy(
        settings.serve_keys or not _loopback(host),
        frozenset({*_LOCAL_NAMES, *(name for name in named if name)}),
        frozenset(settings.serve_origins),
        settings.serve_key_rate,
        settings.serve_address_rate,
        settings.serve_proxies,
    )


class Access:
    """Decides about requests; for one event loop.

    Args:
        keys: The keys; looked at again when their file changes.
        policy: What the settings say.
        secret: Signs sessions.
    """

    def __init__(self, keys: Keys, policy: Policy, secret: bytes) -> None:
        self._keys, self.policy, self._secret = keys, policy, secret
        self._by_key, self._by_address = Rates(), Rates()
        self._looked = time.monotonic()

    def admit(self, scope: Mapping[str, Any]) -> Key:
        """Return whose a request is, and count it.

        Raises:
            Problem: It has no valid read key or session, comes by a strange name, or too fast.
        """
        given = headers(scope, (b"authorization", b"x-api-key", b"cookie", b"host"))
        key = self._whose(given)
        wait = self._by_key.wait(key.name, key.rate or self.policy.key_rate, 1) if key is not NOBODY else 0.0
        if not wait and self.policy.address_rate:
            wait = self._by_address.wait(self.address(scope), self.policy.address_rate, 1)
        if wait:
            raise Problem(
                429, "too many requests; come again later", headers={"retry-after": str(math.ceil(wait))}
            )
        return key

    def _whose(self, given: Mapping[bytes, str]) -> Key:
        if not self.policy.keys and not (b"authorization" in given or b"x-api-key" in given):
            if _named(given.get(b"host", "")) not in self.policy.hosts:
                raise Problem(
                    421,
                    "this server is called by another name; set HEADRACE_SERVE_URL to it, or use a read key",
                )
            return NOBODY
        self._refresh()
        key = self._by_secret(given) or self._by_session(given.get(b"cookie", ""))
        if key is None:
            said = "there is no valid read key; 'headrace keys create NAME --read' makes one, send it as Bearer token"
            raise Problem(401, said, headers={"www-authenticate": "Bearer"})
        return key

    def _by_secret(self, given: Mapping[bytes, str]) -> Key | None:
        scheme, _, secret = given.get(b"authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            secret = given.get(b"x-api-key", "")
        key = self._keys.find(secret.strip()) if secret else None
        if key is not None and not key.may_read:
            raise Problem(
                403, f"key {key.name!r} may not read; 'headrace keys create NAME --read' makes one that may"
            )
        return key

    def login(self, secret: str) -> str | None:
        """Return the session of a read key; None if it is not valid."""
        self._refresh()
        key = self._keys.find(secret.strip())
        if key is None or not key.may_read:
            return None
        said = (
            f"{key.name.encode().hex()}.{key.digests[0].sha256[:16]}.{round(time.time()) + SESSION_SECONDS}"
        )
        return f"{said}.{self._signed(said)}"

    def _by_session(self, cookies: str) -> Key | None:
        for one in cookies.split(";"):
            name, _, value = one.strip().partition("=")
            if name != COOKIE:
                continue
            said, _, signature = value.rpartition(".")
            if not hmac.compare_digest(self._signed(said), signature):
                return None
            held, digest, until = said.split(".")
            if float(until) < time.time():
                return None
            known = (key for key in self._keys.all() if key.revoked is None and key.may_read)
            return next((k for k in known if k.name.encode().hex() == held and _has(k, digest)), None)
        return None

    def _signed(self, said: str) -> str:
        return hmac.new(self._secret, said.encode(), "sha256").hexdigest()

    def _refresh(self) -> None:
        if (now := time.monotonic()) - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            self._keys.refresh()
        except HeadraceError as error:
            log.error("%s", error)

    def allows(self, origin: str) -> bool:
        """Tell whether pages of an origin may read."""
        return "*" in self.policy.origins or origin in self.policy.origins

    def address(self, scope: Mapping[str, Any]) -> str:
        """Return the address of the client, which trusted proxies tell."""
        if self.policy.proxies:
            told = headers(scope, (b"x-forwarded-for",)).get(b"x-forwarded-for", "")
            found = [one.strip() for one in told.split(",") if one.strip()]
            if found:
                return found[-min(self.policy.proxies, len(found))]
        client = scope.get("client")
        return str(client[0]) if client else ""


def _has(key: Key, digest: str) -> bool:
    return any(one.sha256[:16] == digest for one in key.digests)


def headers(scope: Mapping[str, Any], names: tuple[bytes, ...]) -> dict[bytes, str]:
    """Return some headers of a request."""
    return {name: value.decode("latin-1") for name, value in scope["headers"] if name in names}


def _named(host: str) -> str:
    name = (
        host.rpartition(":")[0] if host.count(":") == 1 or (host.startswith("[") and "]:" in host) else host
    )
    return name.lower()


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def session_secret(path: Path) -> bytes:
    """Return what signs sessions: kept in a file, so that a restart ends none."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return path.read_bytes()
    with os.fdopen(descriptor, "wb") as file:
        made = secrets.token_bytes(32)
        file.write(made)
    return made
