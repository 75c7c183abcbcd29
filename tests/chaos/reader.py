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
from chaos.rows import TABLES, Naming, by_origin

_PAUSE = 0.3
_UNKNOWN = ("UNKNOWN_TABLE", "UNKNOWN_DATABASE", "ode: 60", "ode: 81")


class Lake:
    """Rows of a lake, by plain Delta and Parquet reads; each file is read once."""

    def __init__(self, root: Path, naming: Naming | None = None) -> None:
        self.root, self._naming = root, naming or by_origin()
        self._files: dict[str, list[Row]] = {}

    def rows(self, table: str) -> list[Row]:
        """All rows of the newest version; empty if there is no table yet."""
        try:
            handle = DeltaTable(str(self.root / table))
        except TableNotFoundError:
            return []
        actions = pl.DataFrame(handle.get_add_actions(flatten=True))
        paths = [f"{table}/{unquote(p)}" for p in actions["path"]] if actions.height else []
        return [row for path in paths for row in self._read(table, path)]

    def _read(self, table: str, path: str) -> list[Row]:
        if path not in self._files:
            wanted = self._naming.columns[table]
            columns = pq.ParquetFile(self.root / path).read(wanted).to_pydict()
            self._files[path] = self._naming.rows(table, zip(*(columns[c] for c in wanted)))
        return self._files[path]

    def committed(self, table: str, file: str) -> bool:
        """Whether any commit of the log names a data file."""
        logs = (self.root / table / "_delta_log").glob("*.json")
        return any(Path(file).name in log.read_text() for log in logs)


class Warehouse:
    """Rows of a warehouse, with a connection of its own, for one thread."""

    def __init__(self, settings: dict[str, Any], database: str, naming: Naming | None = None) -> None:
        self.database, self._naming = database, naming or by_origin()
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
        """Every row, at one instant."""
        columns = ", ".join(self._naming.columns[table])
        return self._naming.rows(table, self._query(f"SELECT {columns} FROM {self.database}.{table}"))

    def drop(self) -> None:
        """Remove the whole database."""
        self._client.command(f"DROP DATABASE IF EXISTS {self.database} SYNC")

    def close(self) -> None:
        self._client.close()


class Reader(threading.Thread):
    """Polls until ``finish``. No row is ever there twice, and no count ever falls, or it objects."""

    def __init__(
        self, lake: Path | None, settings: dict[str, Any], database: str, naming: Naming | None = None
    ) -> None:
        super().__init__(daemon=True, name="reader")
        self._naming = naming or by_origin(whole=True)
        self._lake = Lake(lake, self._naming) if lake else None
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
            self._warehouse = self._warehouse or Warehouse(self._settings, self._database, self._naming)
            for table in TABLES:
                there = self._warehouse.rows(table)
                self._see(f"warehouse {table}", len(there), len(set(there)))
            self.looks += 1
        except (ClickHouseError, DeltaError, OSError):
            self.away += 1

    def _see(self, where: str, rows: int, distinct: int) -> None:
        if rows != distinct:
            self._object(f"the reader saw {rows - distinct} rows twice in {where}")
        if rows < self._highest[where]:
            self._object(f"the reader saw {where} fall from {self._highest[where]} to {rows} rows")
        self._highest[where] = max(rows, self._highest[where])

    def _object(self, what: str) -> None:
        if what not in self.objections and len(self.objections) < 5:
            self.objections.append(what)

    def finish(self) -> None:
        self._finish.set()
        self.join(60)
