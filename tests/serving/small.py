"""A warehouse as small as can be: the tables that numbers of events are made of, by hand, with the records of Headrace.

That marts and definitions agree is shown in tests/metrics; here the server before them is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from headrace.config.settings import Settings, load_settings

CHANNELS = ("web", "mobile", "chat")
TYPES = ("page_view", "purchase")
#: Tables that a build makes of raw events, with the width of their windows, s.
MARTS = {"event_metrics": (60,), "event_metrics_rollups": (3_600, 86_400)}
_WINDOWS = """
SELECT event_date, toDateTime(intDiv(toUnixTimestamp(at), width) * width, 'UTC') AS window_start,
    toUInt32(width) AS window_seconds, event_type, channel, sum(n) AS events
FROM {raw}.events ARRAY JOIN {widths} AS width
{where} GROUP BY event_date, window_start, window_seconds, event_type, channel
"""


@dataclass
class Small:
    """Databases of one name on an endpoint.

    Attributes:
        port, user, password: Of the endpoint.
        name: Of the marts; the raw database has ``raw_`` in front.
        version: The lake version that was published last.
    """

    port: int
    password: str
    name: str
    user: str = "headrace"
    version: int = 0
    client: httpx.Client = field(default_factory=lambda: httpx.Client(timeout=60, trust_env=False))

    @property
    def raw(self) -> str:
        return f"raw_{self.name}"

    def run(self, sql: str) -> str:
        """Run a statement; ``{raw}`` and ``{db}`` are the databases."""
        text = sql.replace("{raw}", self.raw).replace("{db}", self.name)
        found = self.client.post(
            f"http://127.0.0.1:{self.port}/",
            content=text.encode(),
            headers={b"X-ClickHouse-User": self.user.encode(), b"X-ClickHouse-Key": self.password.encode()},
        )
        if found.status_code != 200:
            raise RuntimeError(found.text[:500])
        return found.text.strip()

    def create(self) -> Small:
        for database in (self.raw, self.name):
            self.run(f"CREATE DATABASE IF NOT EXISTS {database}")
        self.run(
            "CREATE TABLE {raw}.events (event_date Date, at DateTime('UTC'), event_type LowCardinality(String),"
            " channel LowCardinality(String), n UInt64) ENGINE = MergeTree PARTITION BY event_date ORDER BY at"
        )
        self.run(
            "CREATE TABLE {raw}._publications (table String, lake_id String, version Int64, rows UInt64,"
            " days Array(Date), landed_days Array(Date), fingerprint String, epoch UInt32,"
            " published_at DateTime64(6, 'UTC') DEFAULT now64(6))"
            " ENGINE = ReplacingMergeTree(published_at) ORDER BY (table, lake_id, version)"
        )
        self.run(
            "CREATE TABLE {raw}._refreshes (table String, lake_id String, version Int64, days Array(Date),"
            " began_at DateTime64(6, 'UTC'), epoch UInt32, refreshed_at DateTime64(6, 'UTC') DEFAULT now64(6))"
            " ENGINE = MergeTree ORDER BY (table, lake_id, version)"
        )
        for mart, widths in MARTS.items():
            self.run(
                f"CREATE TABLE {{db}}.{mart} ENGINE = MergeTree PARTITION BY event_date ORDER BY window_start"
                f" EMPTY AS {_WINDOWS.replace('{widths}', str(list(widths))).replace('{where}', '')}"
            )
        live = _WINDOWS.replace("{widths}", "[60]").replace("{where}", "")
        self.run(f"CREATE VIEW {{db}}.event_metrics_live AS {live}")
        return self

    def add(
        self, day: date, channel: str = "web", kind: str = "page_view", n: int = 1, at: datetime | None = None
    ) -> None:
        """Add events to a day: at noon, or just now where that is still to come, unless another time is given."""
        moment = at or min(datetime.combine(day, time(12), UTC), datetime.now(UTC))
        self.run(
            f"INSERT INTO {{raw}}.events VALUES ('{day}', '{moment:%Y-%m-%d %H:%M:%S}', '{kind}', '{channel}', {n})"
        )

    def record(self, *days: date) -> None:
        """Record that a version was published."""
        self.version += 1
        listed = ", ".join(f"'{day}'" for day in days)
        self.run(
            "INSERT INTO {raw}._publications (table, lake_id, version, rows, days) VALUES"
            f" ('events', 'lake', {self.version}, 1, [{listed}])"
        )

    def publish(self, day: date, **more: Any) -> None:
        """Add events and record them, as a publisher does."""
        self.add(day, **more)
        self.record(day)

    def build(self, *days: date) -> None:
        """Build the marts of days from the raw events, as dbt does: a table beside, whose partition is swapped in."""
        for mart, widths in MARTS.items():
            own = _WINDOWS.replace("{widths}", str(list(widths)))
            self.run(f"DROP TABLE IF EXISTS {{db}}.{mart}__dbt_new")
            self.run(f"CREATE TABLE {{db}}.{mart}__dbt_new AS {{db}}.{mart}")
            for day in days:
                where = f"WHERE event_date = '{day}'"
                self.run(f"INSERT INTO {{db}}.{mart}__dbt_new {own.replace('{where}', where)}")
                self.run(f"ALTER TABLE {{db}}.{mart} REPLACE PARTITION '{day}' FROM {{db}}.{mart}__dbt_new")
            self.run(f"DROP TABLE {{db}}.{mart}__dbt_new")
        listed = ", ".join(f"'{day}'" for day in days)
        self.run(
            "INSERT INTO {raw}._refreshes (table, lake_id, version, days, began_at) VALUES"
            f" ('events', 'lake', {self.version}, [{listed}], now64(6))"
        )

    def events_of(self, day: date) -> int:
        """Events of a day."""
        return int(self.run(f"SELECT sum(n) FROM {{raw}}.events WHERE event_date = '{day}'"))

    def settings(self, home: Path, **more: Any) -> Settings:
        """Settings of a server before it, which looks anew for each question."""
        return load_settings(
            with_stack=False,
            home=home,
            clickhouse_host="127.0.0.1",
            clickhouse_port=self.port,
            clickhouse_user=self.user,
            clickhouse_password=SecretStr(self.password),
            dbt_schema=self.name,
            raw_database=self.raw,
            **{"serve_version_ms": 0.0, **more},
        )


def filled(small: Small, today: date, days: int = 12) -> Small:
    """Put events into the last days, some of each channel and type; all days but the last are built."""
    last = [today - timedelta(days=n) for n in range(days)]
    for n, day in enumerate(last):
        for place, channel in enumerate(CHANNELS):
            small.add(day, channel, TYPES[(n + place) % 2], n=10 * n + place + 1)
    now = datetime.now(UTC)
    small.add(now.date(), n=3, at=now)
    small.record(*last)
    small.build(*last[1:])
    return small
