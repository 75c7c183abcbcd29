"""Keys: who may send what to the collector, from where and how fast, and who may read numbers.

The file holds digests, never a key. Keys have 192 random bits, so that one SHA-256 is as good as a slow hash: there is
nothing to guess. Several machines may share the file; each looks at it again when it has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from headrace.core.atomic import write_atomically
from headrace.core.errors import Fatal
from headrace.core.locks import Patience, file_lock
from headrace.core.origins import web_origin

WRITE, READ = "write", "read"
_PREFIX = "hr_"
_PATIENCE = Patience(silent_seconds=5.0, max_seconds=15.0)
#: Characters of a key that ``headrace keys list`` shows, so that people recognise it.
_SHOWN = 7


@dataclass(frozen=True, slots=True)
class Digest:
    """A secret of a key.

    Attributes:
        sha256: Its digest, as hexadecimal digits.
        begins: Its first characters.
        until: When it ends (UTC); None for never.
    """

    sha256: str
    begins: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Key:
    """A key.

    Attributes:
        name: Its name, which people choose; ids of events are unique below it, also after ``rotate``.
        digests: Its secrets: one, and during a rotation two.
        streams: Streams that it may send to; none for all.
        origins: Web origins whose pages may use it, ``*`` for any; none for no page at all.
        rate: Events per second that it may send, or questions that it may ask, on average; 0 for no limit.
        created: When it was made (UTC).
        revoked: When it was revoked (UTC); None while it is valid.
        rights: ``write`` to send events, ``read`` to read numbers.
    """

    name: str
    digests: tuple[Digest, ...]
    created: datetime
    streams: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    rate: float = 0.0
    revoked: datetime | None = None
    rights: frozenset[str] = frozenset({WRITE})

    @property
    def may_write(self) -> bool:
        """Whether the key may send events."""
        return WRITE in self.rights

    @property
    def may_read(self) -> bool:
        """Whether the key may read numbers."""
        return READ in self.rights

    def may_send_to(self, stream: str) -> bool:
        """Tell whether the key is for a stream."""
        return not self.streams or stream in self.streams

    def may_come_from(self, origin: str) -> bool:
        """Tell whether a page of an origin may use the key."""
        return origin in self.origins or "*" in self.origins


#: Stands for whoever sends without a key, where a setting lets them.
NOBODY = Key("anonymous", (), datetime(1970, 1, 1, tzinfo=UTC))


class Keys:
    """The keys of a file.

    Args:
        path: The file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._keys: dict[str, Key] = {}
        self._by_digest: dict[str, tuple[Key, Digest]] = {}
        self._known: dict[str, str] = {}
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it has changed.

        Raises:
            Fatal: It is damaged; the keys of before remain.
        """
        try:
            found = self._path.stat()
            mark = (found.st_mtime_ns, found.st_size, found.st_ino)
        except FileNotFoundError:
            mark = None
        except OSError as error:
            raise Fatal(f"keys {self._path} cannot be read: {error.strerror}; fix its permissions") from error
        if mark == self._seen and (mark is not None or not self._keys):
            return
        self._keys = {} if mark is None else _read(self._path)
        self._by_digest = {d.sha256: (key, d) for key in self._keys.values() for d in key.digests}
        self._known.clear()
        self._seen = mark

    def find(self, secret: str, now: datetime | None = None) -> Key | None:
        """Return the key with a secret that is valid at a moment, by default now; None if there is none."""
        digest = self._known.get(secret)
        if digest is None:
            digest = hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()
            if digest in self._by_digest:  # only what is a key is remembered
                self._known[secret] = digest
        found = self._by_digest.get(digest)
        if found is None:
            return None
        key, one = found
        if key.revoked is not None or (one.until is not None and (now or _now()) >= one.until):
            return None
        return key

    def all(self) -> list[Key]:
        """Return all keys by name, also those that were revoked."""
        return [self._keys[name] for name in sorted(self._keys)]

    @property
    def origins(self) -> frozenset[str]:
        """Web origins of valid keys."""
        return frozenset().union(*(key.origins for key in self._keys.values() if key.revoked is None))

    def create(
        self,
        name: str,
        *,
        streams: Iterable[str] = (),
        origins: Iterable[str] = (),
        rate: float = 0.0,
        rights: Iterable[str] = (WRITE,),
    ) -> str:
        """Make a key and return its secret, which nobody can look up later.

        Raises:
            Fatal: There is a key of this name, also if it was revoked: ids of events are unique below the name. Or
                an origin is none.
            Busy: Another process changes the file.
        """
        secret, digest = _new_secret()
        try:
            pages = frozenset(map(web_origin, origins))
        except ValueError as error:
            raise Fatal(str(error)) from error
        key = Key(name, (digest,), _now(), frozenset(streams), pages, rate, None, frozenset(rights))

        def add(keys: dict[str, Key]) -> None:
            if name in keys:
                raise Fatal(
                    f"there is a key {name!r} already; choose another name, or 'headrace keys rotate {name}'"
                )
            keys[name] = key

        self._change(add)
        return secret

    def rotate(self, name: str, grace: timedelta) -> str:
        """Give a key another secret and return it; the one of before works on for a while.

        Raises:
            Fatal: There is no such key, or it was revoked.
            Busy: Another process changes the file.
        """
        secret, digest = _new_secret()

        def exchange(keys: dict[str, Key]) -> None:
            key, until = _valid(keys, name), _now() + grace
            before = [replace(d, until=min(until, d.until or until)) for d in key.digests]
            keys[name] = replace(key, digests=(digest, *(d for d in before if d.until and d.until > _now())))

        self._change(exchange)
        return secret

    def revoke(self, name: str) -> None:
        """End a key at once.

        Raises:
            Fatal: There is no such key, or it was revoked before.
            Busy: Another process changes the file.
        """

        def end(keys: dict[str, Key]) -> None:
            keys[name] = replace(_valid(keys, name), revoked=_now())

        self._change(end)

    def _change(self, change: Any) -> None:
        with file_lock(self._path.with_name(self._path.name + ".lock"), "changing write keys", _PATIENCE):
            self.refresh()
            keys = dict(self._keys)
            change(keys)
            document = {"version": 1, "keys": [_plain(key) for key in keys.values()]}
            try:
                write_atomically(self._path, json.dumps(document, indent=1), 0o600, synced=True)
            except OSError as error:
                raise Fatal(
                    f"keys {self._path} cannot be written: {error.strerror}; make room or fix its permissions"
                ) from error
            self._seen = None
            self.refresh()


def first_key(keys: Keys, path: Path) -> Path | None:
    """Make a key ``default`` where there is none yet, and return the file that only this user may read its secret from.

    Args:
        keys: The keys.
        path: That file.

    Returns:
        None if there were keys.
    """
    if any(key.may_write for key in keys.all()):
        return None
    secret = keys.create("default")
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")
    return path


def _new_secret() -> tuple[str, Digest]:
    secret = _PREFIX + secrets.token_urlsafe(24)
    return secret, Digest(hashlib.sha256(secret.encode()).hexdigest(), secret[:_SHOWN])


def _valid(keys: dict[str, Key], name: str) -> Key:
    key = keys.get(name)
    if key is None:
        raise Fatal(f"there is no key {name!r}; there are {', '.join(sorted(keys)) or 'none yet'}")
    if key.revoked is not None:
        raise Fatal(f"key {name!r} was revoked at {key.revoked:%Y-%m-%d %H:%M} UTC; make another one")
    return key


def _now() -> datetime:
    return datetime.now(UTC)


def _plain(key: Key) -> dict[str, Any]:
    found = asdict(key) | {
        "streams": sorted(key.streams),
        "origins": sorted(key.origins),
        "rights": sorted(key.rights),
    }
    return json.loads(json.dumps(found, default=lambda value: value.isoformat()))  # type: ignore[no-any-return]


def _read(path: Path) -> dict[str, Key]:
    try:
        document = json.loads(path.read_bytes())
        return {one["name"]: _key(one) for one in document["keys"]}
    except (ValueError, KeyError, TypeError) as error:
        raise Fatal(
            f"keys {path} is damaged: {error!r:.120}; restore it, or move it away and make the keys anew"
        ) from error
    except OSError as error:
        raise Fatal(f"keys {path} cannot be read: {error.strerror}; fix its permissions") from error


def _key(one: dict[str, Any]) -> Key:
    digests = tuple(Digest(d["sha256"], d["begins"], _moment(d["until"])) for d in one["digests"])
    created = datetime.fromisoformat(one["created"])
    rights = frozenset(map(str, one.get("rights", (WRITE,))))  # keys of before may write
    lists = {name: frozenset(map(str, one[name])) for name in ("streams", "origins")}
    return Key(
        str(one["name"]),
        digests,
        created,
        rate=float(one["rate"]),
        revoked=_moment(one["revoked"]),
        rights=rights,
        **lists,
    )


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
