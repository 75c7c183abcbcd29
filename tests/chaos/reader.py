"""A reader beside the writers: looks at lake and warehouse all the time and objects to what must never be seen."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import clickhouse_connect
import polars as pl
import pyarrow.parquet as pq
from clickhouse_connect.driver.exceptions import ClickHouseError
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from chaos.judge import Row

TABLES = ("events", "events_rejected")
_ORIGIN = ["_cursor", "_offset", "_message_id", "_index"]
_PAUSE = 0.3
_UNKNOWN = ("UNKNOWN_TABLE", "UNKNOWN_DATABASE", "ode: 60", "ode: 81")


def row_of(whole: bool, cursor: str, offset: int | None, message_id: str | None, index: int) -> Row:
    """An origin as the judge knows it: partition or queue, offset or message id, place in the message.

    With ``whole``, the partition carries its topic's id, to tell a recreated topic from the one before.
    """
    place = "/".join(cursor.split("/")[-2 if whole else -1 :])
    return (place, message_id if offset is None else offset, index)  # type: ignore[return-value]


class Lake:
    """Origins in a lake, by plain Delta and Parquet reads; each file is read once."""

    def __init__(self, root: Path, *, whole: bool = False) -> None:
        self.root, self._whole = root, whole
        self._files: dict[str, list[Row]] = {}

    def rows(self, table: str) -> list[Row]:
        """All rows of the newest version; empty if there is no table yet."""
        try:
            handle = DeltaTable(str(self.root / table))
        except TableNotFoundError:
            return []
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        paths = [f"{table}/{unquote(p)}" for p in actions["path"]] if actions.height else []
        return [row for path in paths for row in self._read(path)]

    def _read(self, path: str) -> list[Row]:
        if path not in self._files:
            columns = pq.ParquetFile(self.root / path).read(_ORIGIN).to_pydict()
            origins = zip(*(columns[c] for c in _ORIGIN))
            self._files[path] = [row_of(self._whole, *origin) for origin in origins]
        return self._files[path]

    def committed(self, table: str, file: str) -> bool:
        """Whether any commit of the log names a data file."""
        logs = (self.root / table / "_delta_log").glob("*.json")
        return any(Path(file).name in log.read_text() for log in logs)


class Warehouse:
    """Origins in a warehouse, with a connection of its own, for one thread."""

    def __init__(self, settings: dict[str, Any], database: str, *, whole: bool = False) -> None:
        self.database, self._whole = database, whole
        self._client = clickhouse_connect.get_client(
            host=settings["clickhouse_host"],
            port=settings["clickhouse_port"],
            username=settings["clickhouse_user"],
            password=settings["clickhouse_password"],
            autogenerate_session_id=False,
            connect_timeout=5,
            send_receive_timeout=60,
        )

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        try:
            return list(self._client.query(sql).result_rows)
        except ClickHouseError as error:
            if any(word in str(error) for word in _UNKNOWN):
                return []  # not created yet
            raise

    def rows(self, table: str) -> list[Row]:
        """Every row's origin."""
        found = self._query(f"SELECT {', '.join(_ORIGIN)} FROM {self.database}.{table}")
        return [row_of(self._whole, *row) for row in found]

    def counts(self, table: str) -> tuple[int, int]:
        """Rows, and distinct origins, at one instant."""
        origin = ", ".join(_ORIGIN)
        found = self._query(f"SELECT count(), uniqExact(tuple({origin})) FROM {self.database}.{table}")
        return (int(found[0][0]), int(found[0][1])) if found else (0, 0)

    def drop(self) -> None:
        """Remove the whole database."""
        self._client.command(f"DROP DATABASE IF EXISTS {self.database} SYNC")

    def close(self) -> None:
        self._client.close()


class Reader(threading.Thread):
    """Polls until ``finish``. No origin is ever there twice, and no count ever falls, or it objects."""

    def __init__(self, lake: Path | None, settings: dict[str, Any], database: str) -> None:
        super().__init__(daemon=True, name="reader")
        self._lake = Lake(lake, whole=True) if lake else None
        self._settings, self._database = settings, database
        self._warehouse: Warehouse | None = None
        self._finish = threading.Event()
        self._highest: Counter[str] = Counter()
        self.objections: list[str] = []
        self.looks = 0
        self.away = 0
        self.landed = 0

    def run(self) -> None:
        while not self._finish.is_set():
            self.look()
            self._finish.wait(_PAUSE)
        if self._warehouse:
            self._warehouse.close()

    def look(self) -> None:
        """Look once at everything; a service that is away is noted and not an objection."""
        try:
            if self._lake:
                rows = {table: self._lake.rows(table) for table in TABLES}
                for table, found in rows.items():
                    self._see(f"lake {table}", len(found), len(set(found)))
                both = [row for found in rows.values() for row in found]
                self._see("lake, both tables", len(both), len(set(both)))
                self.landed = len({row[:2] for row in both})
            self._warehouse = self._warehouse or Warehouse(self._settings, self._database)
            for table in TABLES:
                self._see(f"warehouse {table}", *self._warehouse.counts(table))
            self.looks += 1
        except (ClickHouseError, DeltaError, OSError):
            self.away += 1

    def _see(self, where: str, rows: int, distinct: int) -> None:
        if rows != distinct:
            self._object(f"the reader saw {rows - distinct} origins twice in {where}")
        if rows < self._highest[where]:
            self._object(f"the reader saw {where} fall from {self._highest[where]} to {rows} rows")
        self._highest[where] = max(rows, self._highest[where])

    def _object(self, what: str) -> None:
        if what not in self.objections and len(self.objections) < 5:
            self.objections.append(what)

    def finish(self) -> None:
        self._finish.set()
        self.join(60)
