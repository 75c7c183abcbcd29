"""Say how two contents differ, in lines that people read."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any


def between(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each key whose value is another one; texts of several lines as a unified difference."""
    for key in [*wanted, *(one for one in found if one not in wanted)]:
        there, asked = found.get(key), wanted.get(key)
        if there == asked:
            continue
        if isinstance(there, str) and isinstance(asked, str) and "\n" in there + asked:
            yield f"{key}:"
            lines = difflib.unified_diff(
                there.splitlines(), asked.splitlines(), "there", "wanted", lineterm="", n=1
            )
            yield from (f"  {line}" for line in lines)
        else:
            yield f"{key}: {shown(there)} -> {shown(asked)}"


def shown(value: Any) -> str:
    """Return a value as short text."""
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:197]}..."
