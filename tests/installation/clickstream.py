"""A clickstream that nobody has seen before, and what it comes to, counted without Headrace."""

from __future__ import annotations

import csv
import io
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

#: The clocks of the shop; they go forward within these days, so that some times do not exist.
ZONE = ZoneInfo("Europe/Berlin")
BEGIN, DAYS, ROWS = datetime(2024, 3, 29), 5, 30_000
HEAD = ("ts", "visitor", "action", "url", "device", "ms", "price", "is_bot")
_FORMAT = "%Y-%m-%d %H:%M:%S"
_ODD_TIMES = ("31/03/2024 10:21", "yesterday", "2024-03-30 25:00:00")

Row = tuple[str, ...]


def rows(seed: int = 18) -> list[Row]:
    """Rows as a shop's database exports them: times without a zone, no id, repeats, gaps and odd values."""
    chance = random.Random(seed)
    made: list[Row] = []
    for n in range(ROWS):
        at = BEGIN + timedelta(seconds=chance.randrange(DAYS * 86_400))
        action = chance.choices(("view", "click", "add_to_cart", "purchase"), (70, 20, 7, 3))[0]
        row = (
            at.strftime(_FORMAT) if n % 997 else chance.choice(_ODD_TIMES),
            f"v{chance.randrange(4_000)}" if chance.random() < 0.8 else "",
            action,
            chance.choice(("/", "/search?q=a,b", "/cart", '/p/"7"', "/über-uns")),
            chance.choice(("phone", "desktop", "tablet")),
            str(chance.randrange(30_000)) if chance.random() < 0.7 else "",
            f"{chance.randrange(100, 20_000) / 100:.2f}" if action == "purchase" else "",
            chance.choice(("true", "false", "false", "false")),
        )
        made.append(row)
        if chance.random() < 0.03:  # sent twice
            made.insert(chance.randrange(max(0, len(made) - 500), len(made)), row)
    return made


def as_csv(made: list[Row]) -> bytes:
    """The rows as a file, with quotes where they are needed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(HEAD)
    writer.writerows(made)
    return text.getvalue().encode()


@dataclass
class Counted:
    """What must come out.

    Attributes:
        landed: Rows that land, repeats too.
        refused: Rows whose time is none.
        marts: Clicks, visitors and revenue by UTC day and action; a row that came twice counts once.
    """

    landed: int = 0
    refused: int = 0
    marts: dict[tuple[date, str], tuple[int, int, Decimal]] = field(default_factory=dict)


def count(content: bytes) -> Counted:
    """Count a file with csv, datetime and dict alone."""
    found, seen = Counted(), set[Row]()
    clicks: Counter[tuple[date, str]] = Counter()
    visitors: dict[tuple[date, str], set[str]] = defaultdict(set)
    revenue: dict[tuple[date, str], Decimal] = defaultdict(Decimal)
    for line in csv.DictReader(io.StringIO(content.decode(), newline="")):
        at = _moment(line["ts"])
        if at is None:
            found.refused += 1
            continue
        found.landed += 1
        row = tuple(line.values())
        if row in seen:
            continue
        seen.add(row)
        key = (at.date(), line["action"])
        clicks[key] += 1
        visitors[key] |= {line["visitor"]} - {""}
        revenue[key] += Decimal(line["price"] or 0)
    found.marts = {key: (n, len(visitors[key]), revenue[key]) for key, n in clicks.items()}
    return found


def _moment(text: str) -> datetime | None:
    """The UTC time of a time on the shop's clocks; None if there is none."""
    try:
        local = datetime.strptime(text, _FORMAT).replace(tzinfo=ZONE)
    except ValueError:
        return None
    moment = local.astimezone(UTC)
    return moment if moment.astimezone(ZONE).replace(tzinfo=None) == local.replace(tzinfo=None) else None
