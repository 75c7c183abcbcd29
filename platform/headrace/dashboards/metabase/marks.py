"""Mark what Headrace made in Metabase: which thing it is, and the content that it was given.

The mark is the last line of a description: ``headrace:card:events.trend:4be9fd20ab13``. It is kept in Metabase alone,
so that any machine can go on where another one ended.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

_MARK = re.compile(r"\s*headrace:([a-z]+):([\w.-]+):(\w+)\s*$")
#: States of a mark instead of a digest: being written, and archived by Headrace itself.
UNFINISHED, ARCHIVED = "unfinished", "archived"
_DIGITS = 12


@dataclass(frozen=True, slots=True)
class Mark:
    """Which thing of Headrace something in Metabase is.

    Attributes:
        kind: ``database``, ``collection``, ``table``, ``card`` or ``dashboard``.
        key: Its name among those of its kind.
        state: Digest of the content that it was given, ``unfinished`` or ``archived``.
    """

    kind: str
    key: str
    state: str

    @property
    def is_settled(self) -> bool:
        """Whether the content was written as a whole, so that another content is an edit by hand."""
        return self.state not in (UNFINISHED, ARCHIVED)


def digest(content: Any) -> str:
    """Return a digest of a content: JSON, in which the order of keys does not count."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def with_mark(description: str, mark: Mark) -> str:
    """Return a description that ends with a mark."""
    return f"{description}\n\nheadrace:{mark.kind}:{mark.key}:{mark.state}".lstrip()


def parted(description: str | None) -> tuple[str, Mark | None]:
    """Take a description apart: the text that people read, and its mark."""
    text = description or ""
    found = _MARK.search(text)
    if found is None:
        return text, None
    return text[: found.start()], Mark(found[1], found[2], found[3])


def entity_id(kind: str, key: str) -> str:
    """Return the entity id of a thing of Headrace: 21 characters as of a NanoID, always the same."""
    hashed = hashlib.sha256(f"headrace:{kind}:{key}".encode()).digest()
    return base64.urlsafe_b64encode(hashed).decode()[:21]


def short_id(kind: str, key: str) -> str:
    """Return eight hexadecimal digits, always the same: the id of a dashboard's parameter."""
    return hashlib.sha256(f"headrace:{kind}:{key}".encode()).hexdigest()[:8]
