"""Count the fields that a contract does not name, and apply the contract's policy to them.

The counts are records by field, good and rejected ones alike. Only top-level fields count: the content of
``properties`` is data. A producer may invent names without end, so few names are kept; the records with other
names are one number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

#: Policy for fields outside a contract: count them by name, reject the record, or keep them as JSON in ``_extra``.
Policy = Literal["count", "reject", "keep"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
#: Column with the fields that a contract does not name, a JSON object; null for none.
EXTRA = "_extra"
#: Name of the check that such a record fails if its contract says ``reject``.
CHECK = "unknown_field"
#: Key of the counts in a commit of the lake.
NOTE = "headrace.unknown_fields"
#: Stands for all names beyond the first ``_NAMES``.
OTHERS = "(others)"

_NAMES = 20
_CHARACTERS = 64


def added(*counts: Mapping[str, int]) -> dict[str, int]:
    """Add up records by field; beyond ``_NAMES`` fields, the rarest become ``OTHERS``."""
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
    """Return the note with which a commit records these counts."""
    return {NOTE: json.dumps(counts, ensure_ascii=False)} if counts else {}


@dataclass(frozen=True, slots=True)
class Seen:
    """How often a field occurred, and when it last did.

    Attributes:
        records: Number of records with the field.
        newest: When the last of them was committed (UTC).
    """

    records: int
    newest: datetime


def seen(notes: Iterable[tuple[datetime, str]]) -> dict[str, Seen]:
    """Read back the counts that commits recorded, by field, the newest first."""
    found: dict[str, Seen] = {}
    for at, note in notes:
        for name, records in json.loads(note).items():
            before = found.get(name)
            newest = at if before is None else max(at, before.newest)
            found[name] = Seen(records + (before.records if before else 0), newest)
    return dict(sorted(found.items(), key=lambda one: (-one[1].newest.timestamp(), -one[1].records, one[0])))
