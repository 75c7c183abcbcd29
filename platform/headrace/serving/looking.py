"""Look what the warehouse holds: one small query for all who ask within a moment, the rest only after a change."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from typing import Any

from headrace.core.errors import Fatal
from headrace.serving.base import Asking
from headrace.serving.held import WHOLE, Held, Published, Relation

#: Tables that come and go during a build or a publication.
_OURS = (
    "(database = {raw:String} OR database = {marts:String} OR startsWith(database, {beside:String}))"
    " AND NOT startsWith(%(name)s, '_staging_') AND position(%(name)s, '__dbt_') = 0"
)
_PARTS = f"""
SELECT database, table, partition_id AS partition,
    concat(min(min_block_number), '.', max(max_block_number), '.', max(data_version)) AS mark
FROM %(parts)s
WHERE active AND {_OURS % {"name": "table"}}
GROUP BY database, table, partition_id
"""
_TABLES = f"""
SELECT database, name AS table, partition_key, endsWith(engine, 'View') OR engine = 'Distributed' AS view,
    concat(toString(uuid), ' ', toString(toUnixTimestamp(metadata_modification_time))) AS mark
FROM system.tables
WHERE {_OURS % {"name": "name"}}
"""
_DIGEST = f"""
SELECT
    (SELECT concat(count(), '.', groupBitXor(cityHash64(database, table, partition, mark))) FROM ({_PARTS})) AS parts,
    (SELECT concat(count(), '.', groupBitXor(cityHash64(database, table, mark))) FROM ({_TABLES})) AS tables
"""
#: Seconds that are looked back for records that two writers wrote in another order.
_OVERLAP_SECONDS = 600
_PUBLISHED = """
WITH (
    SELECT argMax(lake_id, published_at) FROM %(raw)s._publications WHERE table = {table:String}
) AS lake
SELECT arrayJoin(arrayPushBack(days, toDate(0))) AS day,
    max((epoch, version)) AS newest, argMax(published_at, (epoch, version)) AS at
FROM %(raw)s._publications
WHERE table = {table:String} AND lake_id = lake AND published_at > toDateTime64({since:String}, 6, 'UTC')
GROUP BY day
"""
_BUILT = """
SELECT table, arrayJoin(days) AS day, argMax((epoch, version), refreshed_at) AS newest, max(refreshed_at) AS at
FROM %(raw)s._refreshes
WHERE refreshed_at > toDateTime64({since:String}, 6, 'UTC')
GROUP BY table, day
"""
_LONG_AGO = "1970-01-02 00:00:00"
_EVERY = date(1970, 1, 1)


class Looking:
    """Looks at one warehouse.

    Args:
        warehouse: The warehouse.
        raw: Database of the raw tables.
        marts: Database of the marts, whose name begins those beside it.
        cluster: ClickHouse cluster; empty for one server. The parts of every replica count then: an answer that was
            made while one lagged behind is made anew once it has caught up.
    """

    def __init__(self, warehouse: Asking, raw: str, marts: str, cluster: str = "") -> None:
        self._warehouse, self._raw = warehouse, raw
        self._names = {"raw": raw, "marts": marts, "beside": f"{marts}_"}
        parts = f"clusterAllReplicas('{cluster}', system.parts)" if cluster else "system.parts"
        self._digest_sql, self._parts_sql = _DIGEST % {"parts": parts}, _PARTS % {"parts": parts}
        self._since: dict[str, str] = {}
        self._lake: dict[str, str] = {}

    async def look(self, before: Held | None) -> Held:
        """Return what the warehouse holds: at least all that it held when this was called.

        Args:
            before: What it held at the last look, which is returned where nothing has changed.

        Raises:
            Away: It does not answer.
            Fatal: It refuses.
        """
        [found] = await self._warehouse.rows(self._digest_sql, self._names)
        digest = f"{found['parts']} {found['tables']}"
        if before is not None and before.digest == digest:
            return before
        # read after the digest: what changes meanwhile makes the next digest another one
        relations = await self._relations()
        if f"{self._raw}._publications" not in relations:
            return Held(digest, relations)
        streams = await self._streams()
        touched, published = {}, {}
        for stream in streams:
            days = await self._published(stream, before)
            newest = days.pop(_EVERY, None)
            touched[stream] = days
            if newest is not None:
                published[stream] = newest
        return Held(digest, relations, published, touched, await self._built(before))

    async def _relations(self) -> dict[str, Relation]:
        marks: dict[str, dict[str, str]] = {}
        for one in await self._warehouse.rows(self._parts_sql, self._names):
            marks.setdefault(f"{one['database']}.{one['table']}", {})[one["partition"]] = one["mark"]
        found = {}
        for one in await self._warehouse.rows(_TABLES, self._names):
            name = f"{one['database']}.{one['table']}"
            own = {WHOLE: one["mark"], **marks.get(name, {})}
            found[name] = Relation(one["partition_key"].strip("`"), bool(one["view"]), own)
        return found

    async def _streams(self) -> list[str]:
        sql = f"SELECT table, argMax(lake_id, published_at) AS lake FROM {self._raw}._publications GROUP BY table"
        found = {one["table"]: one["lake"] for one in await self._warehouse.rows(sql)}
        for stream, lake in found.items():
            if self._lake.get(stream) != lake:  # another lake: all of it is new
                self._lake[stream] = lake
                self._since.pop(stream, None)
        return sorted(found)

    async def _published(self, stream: str, before: Held | None) -> dict[date, Published]:
        known: dict[date, Published] = {}
        if before is not None and stream in self._since:
            known = dict(before.touched.get(stream, {}))
            if stream in before.published:
                known[_EVERY] = before.published[stream]
        given = {"table": stream, "since": self._since.get(stream, _LONG_AGO)}
        rows = await self._warehouse.rows(_PUBLISHED % {"raw": self._raw}, given)
        for day, one in _by_day(rows):
            known[day] = max(known.get(day, one), one)
        if _EVERY in known:
            self._since[stream] = _earlier(known[_EVERY].at)
        return known

    async def _built(self, before: Held | None) -> dict[str, dict[date, Published]]:
        since = self._since.get("", _LONG_AGO) if before is not None else _LONG_AGO
        found = {name: dict(days) for name, days in (before.built if before is not None else {}).items()}
        rows = await self._warehouse.rows(_BUILT % {"raw": self._raw}, {"since": since})
        for one in rows:
            days = found.setdefault(one["table"], {})
            for day, made in _by_day([one]):
                days[day] = made if day not in days or made.at > days[day].at else days[day]
        if rows:
            self._since[""] = _earlier(max(one["at"] for one in rows))
        return found


def _by_day(rows: list[dict[str, Any]]) -> list[tuple[date, Published]]:
    found = []
    for one in rows:
        newest = one["newest"]
        epoch, version = newest.values() if isinstance(newest, Mapping) else newest
        found.append((date.fromisoformat(one["day"]), Published(int(epoch), int(version), one["at"])))
    return found


def _earlier(at: str) -> str:
    from datetime import datetime, timedelta

    try:
        moment = datetime.fromisoformat(at) - timedelta(seconds=_OVERLAP_SECONDS)
    except ValueError:
        raise Fatal(f"the warehouse wrote a time that is none: {at!r}") from None
    return f"{moment:%Y-%m-%d %H:%M:%S}"
