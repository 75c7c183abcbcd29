"""Read the place of a nested value: names joined by dots, and elements of lists in brackets."""

from __future__ import annotations

import re

#: Names of members and numbers of elements, from the outermost on.
Path = tuple[str | int, ...]
#: A name, an element, a name in quotes (which may have dots and brackets).
_STEP = re.compile(r"""\.?([^.\[\]'"\s]+)|\[(\d{1,6})\]|\.?\[(?:'([^']+)'|"([^"]+)")\]""")
_MOST_STEPS = 16


def parse_path(text: str) -> Path:
    """Read a path such as ``context.page.url``, ``$.items[0].sku`` or ``user['e.mail']``.

    Raises:
        ValueError: The text is no path; the message says why.
    """
    rest = text.removeprefix("$.") if text.startswith("$.") else text.removeprefix("$")
    steps: list[str | int] = []
    at = 0
    while at < len(rest):
        found = _STEP.match(rest, at)
        if (
            found is None
            or (at == 0 and found[0].startswith("."))
            or (at and found[1] and found[0][0] != ".")
        ):
            raise ValueError(
                f"it breaks at {rest[at:][:20]!r}; write it like 'context.page.url' or 'items[0].sku'"
            )
        name, element, *quoted = found.groups()
        steps.append(int(element) if element else name or quoted[0] or quoted[1])
        at = found.end()
    if not steps or isinstance(steps[0], int):
        raise ValueError("it begins with no name; write it like 'context.page.url' or 'items[0].sku'")
    if len(steps) > _MOST_STEPS:
        raise ValueError(f"it has {len(steps)} steps; {_MOST_STEPS} are possible")
    return tuple(steps)


def written(path: Path) -> str:
    """Write a path as columns of a file may be named: names joined by dots."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")
