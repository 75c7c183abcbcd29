"""Fields that a contract does not name: what becomes of them, and how they are counted.

Counted are records by field, good and rejected ones, of top-level fields alone: what is in ``properties`` is data. A
producer may make names up without end, so few are kept; the records of the others are one number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

#: What becomes of fields outside a contract: counted by name, a reason to reject, or kept as JSON in ``_extra``.
Policy = Literal["count", "reject", "keep"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
#: Column with the fields that a contract does not name, a JSON object; null for none.
EXTRA = "_extra"
#: Check of a record that has one although its contract says ``reject``.
CHECK = "unknown_field"
#: Key of the counts in a commit of the lake.
NOTE = "headrace.unknown_fields"
#: In the place of the names beyond the first.
OTHERS = "(others)"

_NAMES = 20
_CHARACTERS = 64


def added(*counts: Mapping[str, int]) -> dict[str, int]:
    """Sum up records by field; of more than ``_NAMES`` fields those with the fewest become ``OTHERS``."""
    total: dict[str, int] = {}
    for count in counts:
        for name, records in count.items():
            short = name if len(name) <= _CHARACTERS else f"{name[:_CHARACTERS]}…"
            total[short] = total.get(short, 0) + records
    if len(total) <= _NAMES + (OTHERS in total):
        return total
    others = total.pop(OTHERS, 0)
    ordered = sorted(total.items(), key=lambda one: (-one[1], one[0]))
    others += sum(records for _, records in ordered[_NAMES:])
    return {**dict(ordered[:_NAMES]), OTHERS: others}


def noted(counts: Mapping[str, int]) -> dict[str, str]:
    """What a commit says of the records that it adds."""
    return {NOTE: json.dumps(counts, ensure_ascii=False)} if counts else {}


@dataclass(frozen=True, slots=True)
class Seen:
    """How often a field was there, and when last.

    Attributes:
        records: How many records had it.
        newest: When the last of them was committed (UTC).
    """

    records: int
    newest: datetime


def seen(notes: Iterable[tuple[datetime, str]]) -> dict[str, Seen]:
    """Read back what commits noted, by field, the newest first."""
    found: dict[str, Seen] = {}
    for at, note in notes:
        for name, records in json.loads(note).items():
            before = found.get(name)
            newest = at if before is None else max(at, before.newest)
            found[name] = Seen(records + (before.records if before else 0), newest)
    return dict(sorted(found.items(), key=lambda one: (-one[1].newest.timestamp(), -one[1].records, one[0])))
