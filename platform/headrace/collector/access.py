"""Let a request in: whose key it has, what that may do, and how fast."""

from __future__ import annotations

import binascii
import ipaddress
import logging
import time
from base64 import b64decode
from collections.abc import Collection
from dataclasses import dataclass

from headrace.collector.base import Admits, Claim, Refused, too_fast
from headrace.collector.http import Request
from headrace.collector.keys import NOBODY, Key, Keys
from headrace.collector.limits import Rated
from headrace.core.errors import HeadraceError

log = logging.getLogger(__name__)

#: Headers and parameters that may hold a write key.
_HEADERS = ("x-write-key", "x-api-key")
_PARAMETERS = ("write_key", "writeKey", "api_key", "key")
#: Seconds between two looks at the file of keys.
_LOOK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Policy:
    """What the settings say about who may come.

    Attributes:
        anonymous: Whether a key may be missing.
        origins: Web origins that may send with any key.
        key_rate: Events per second of a key that has no rate of its own; 0 for no limit.
        address_rate: Events per second of an address; 0 for no limit.
        proxies: Proxies that add to ``X-Forwarded-For``.
    """

    anonymous: bool = False
    origins: frozenset[str] = frozenset()
    key_rate: float = 0.0
    address_rate: float = 0.0
    proxies: int = 0


class Access:
    """Decides about requests. For one thread."""

    def __init__(self, keys: Keys, policy: Policy, rated: Admits | None = None) -> None:
        """Take keys and policy.

        Args:
            keys: The write keys; looked at again when their file changes.
            policy: What the settings say.
            rated: Judges who sends too fast; None for who counts by itself.
        """
        self._keys, self._policy = keys, policy
        self._rated: Admits = rated or Rated()
        self._looked = time.monotonic()

    def key(self, request: Request, in_body: str | None = None) -> Key:
        """Return whose a request is.

        Args:
            request: The request.
            in_body: A key that its body has, which counts if there is no other.

        Raises:
            Refused: It has no valid key.
        """
        self._refresh()
        secret = secret_of(request) or in_body
        if not secret:
            if self._policy.anonymous:
                return NOBODY
            raise Refused(
                401, "there is no write key; 'headrace keys create' makes one, send it as Bearer token"
            )
        key = self._keys.find(secret)
        if key is None:
            raise Refused(401, "the write key is not valid; 'headrace keys list' shows those that are")
        if not key.may_write:
            raise Refused(403, f"key {key.name!r} may only read; 'headrace keys create' makes one that sends")
        return key

    def _refresh(self) -> None:
        if (now := time.monotonic()) - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        try:
            self._keys.refresh()
        except HeadraceError as error:
            log.error("%s", error)

    def admit(self, request: Request, key: Key, streams: Collection[str], events: int) -> list[Claim]:
        """Check what a key may do, and count its events.

        Returns:
            For whom they count.

        Raises:
            Refused: It may not send to one of the streams, or from this origin, or sends too fast.
        """
        for stream in streams:
            if not key.may_send_to(stream):
                raise Refused(403, f"write key {key.name!r} may not send to stream {stream!r}")
        origin = request.headers.get("origin")
        if origin and not self.allowed(origin, key):
            raise Refused(403, f"pages of {origin[:200]!r} may not use write key {key.name!r}")
        claims = []
        if rate := key.rate or self._policy.key_rate:
            claims.append(Claim("key", key.name, rate))
        if self._policy.address_rate:
            claims.append(Claim("address", self.address(request), self._policy.address_rate))
        if claims and (wait := self._rated.wait(claims, events)):
            raise too_fast(wait)
        return claims

    def allowed(self, origin: str, key: Key | None = None) -> bool:
        """Tell whether pages of an origin may send with a key, or, before the key is known, with any."""
        if origin in self._policy.origins or "*" in self._policy.origins:
            return True
        if key is not None:
            return key.may_come_from(origin)
        known = self._keys.origins
        return origin in known or "*" in known

    def address(self, request: Request) -> str:
        """Return the address of the client, which trusted proxies tell."""
        if self._policy.proxies:
            given: str = request.headers.get("x-forwarded-for", "")
            told = [one.strip() for one in given.split(",") if one.strip()]
            if told:
                return told[-min(self._policy.proxies, len(told))]
        return request.address


def secret_of(request: Request) -> str | None:
    """Return the write key that a request has beside its body: Basic, Bearer, a header or a parameter."""
    given: str | None = request.headers.get("authorization")
    if given:
        scheme, _, rest = given.partition(" ")
        rest = rest.strip()
        if scheme.lower() == "bearer":
            return rest or None
        if scheme.lower() == "basic":
            try:
                user, _, password = b64decode(rest, validate=True).decode().partition(":")
            except (binascii.Error, UnicodeDecodeError):
                raise Refused(401, "the Basic authorization is no base64 of user and password") from None
            return user or password or None
        raise Refused(401, f"authorization {scheme[:20]!r} is unknown; use Basic or Bearer")
    for name in _HEADERS:
        if (found := request.headers.get(name)) is not None:
            return str(found)
    if request.query:
        for name in _PARAMETERS:
            if (value := request.parameters.get(name)) is not None:
                return value
    return None


def network(address: str) -> str:
    """Return the network of an address, of 24 bits or 48; empty for what is no address."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return ""
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped:
        found = found.ipv4_mapped
    bits = 24 if found.version == 4 else 48
    return str(ipaddress.ip_network((found, bits), strict=False).network_address)
